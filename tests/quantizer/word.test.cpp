// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <limits>
#include <string_view>

#include <gtest/gtest.h>

#include "detent/quantizer/word.hpp"

namespace {

using namespace detent;
using namespace detent::vocabulary;

TEST(word, is_a_whole_part_or_the_beginning_of_one) {
    word const plain{.name = "search", .help = "", .sets = [](spec& s) { s.search = true; }};
    word const valued{.name = "damp=", .value = "0.01", .help = "", .reads = [](spec& s, std::string_view text) {
                          return read_real(text, 0, 1, s.gptq_options.damping);
                      }};
    EXPECT_EQ(plain.example(), "search");
    EXPECT_EQ(plain.called(), "search");
    EXPECT_EQ(valued.example(), "damp=0.01");
    EXPECT_EQ(valued.called(), "damp");
    spec s;
    EXPECT_FALSE(plain.accepts(s, "searches"));
    EXPECT_FALSE(plain.accepts(s, "sear"));
    EXPECT_FALSE(s.search);
    EXPECT_TRUE(plain.accepts(s, "search"));
    EXPECT_TRUE(s.search);
    EXPECT_TRUE(valued.accepts(s, "damp=0.5"));
    EXPECT_EQ(s.gptq_options.damping, 0.5);
    EXPECT_FALSE(valued.accepts(s, "damp"));
    EXPECT_FALSE(valued.accepts(s, "damp=2")); // which was read before it was refused
    EXPECT_EQ(s.gptq_options.damping, 0.5);
}

TEST(word, reads_numbers) {
    index_t n = 0;
    EXPECT_TRUE(read_number("128", n));
    EXPECT_EQ(n, 128);
    for (auto const* const text : {"", "0", "-1", "1x", " 1", "1.5", "99999999999999999999"}) {
        EXPECT_FALSE(read_number(text, n)) << text;
    }
    double x = 0;
    EXPECT_TRUE(read_real("1e-3", 0, 1, x));
    EXPECT_EQ(x, 1e-3);
    EXPECT_TRUE(read_real("0", 0, 1, x) && read_real("1", 0, 1, x));
    EXPECT_EQ(x, 1);
    for (auto const* const text : {"", "-0.1", "1.01", "nan", "inf", "0.5x"}) {
        EXPECT_FALSE(read_real(text, 0, 1, x)) << text;
    }
    EXPECT_FALSE(read_real("nan", 0, std::numeric_limits<double>::infinity(), x));
}

TEST(word, reads_grids) {
    grid_name grid;
    EXPECT_TRUE(read_grid("int8sym", grid));
    EXPECT_EQ(grid, (grid_name{"int8", true, false}));
    EXPECT_TRUE(read_grid("fp6", grid));
    EXPECT_EQ(grid, (grid_name{"e3m2", false, true}));
    for (auto const* const text : {"", "sym", "int9", "int", "fp5", "e4m4", "nf4sym", "gptq"}) {
        EXPECT_FALSE(read_grid(text, grid)) << text;
    }
    for (named_format const& f : named_formats) {
        spec s;
        EXPECT_TRUE(read_block_format(s, f.name)) << f.name;
        EXPECT_EQ(s.grid.name, f.grid);
        EXPECT_TRUE(read_input_block_format(s, f.name)) << f.name;
        EXPECT_EQ(s.input.grid.name, f.grid);
        EXPECT_EQ(s.input.width, f.width);
    }
    spec s;
    EXPECT_FALSE(read_block_format(s, "mxfp5"));
    EXPECT_FALSE(read_input_block_format(s, "mxfp5"));
}

} // namespace

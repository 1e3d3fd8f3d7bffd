// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "detent/quantizer/named_grid.hpp"
#include "io/failure_message.hpp"

namespace {

using namespace detent;

TEST(grid_name, reads_what_it_writes) {
    for (auto const* const text : {"int4", "int1sym", "int8sym", "e2m1", "ocp-e4m3", "nf4", "ternary"}) {
        grid_name const name = grid_name::parse(text);
        EXPECT_EQ(name.text(), text);
        EXPECT_FALSE(name.any_split) << text;
        EXPECT_EQ(grid_name::parse(name.text()), name) << text;
    }
    EXPECT_EQ(grid_name::parse("int4sym"), (grid_name{"int4", true, false}));
    EXPECT_EQ(grid_name::parse("int4"), (grid_name{"int4", false, false}));
    EXPECT_EQ(grid_name::parse("fp4"), (grid_name{"e2m1", false, true}));
    EXPECT_EQ(grid_name::parse("fp6"), (grid_name{"e3m2", false, true}));
    EXPECT_EQ(grid_name::parse("fp8"), (grid_name{"e4m3", false, true}));
    EXPECT_EQ(grid_name::parse("fp8").text(), "e4m3");
}

TEST(find_grid, finds_the_grid_of_that_name) {
    struct {
        char const* text;
        int bits;
        float low;
        float high;
    } const cases[] = {{"int4", 4, 0, 15},         {"int4sym", 4, -8, 7},  {"int1sym", 1, -1, 1},
                       {"e2m1", 4, -6, 6},         {"fp4", 4, -6, 6},      {"fp6", 6, -28, 28},
                       {"fp8", 8, -480, 480},      {"e3m0", 4, -16, 16},   {"e1m2", 4, -3.5F, 3.5F},
                       {"ocp-e4m3", 8, -448, 448}, {"nf4", 4, -1, 1},      {"ternary", 2, -1, 1},
                       {"ocp-e5m2", 8, -57344, 57344}};
    for (auto const& c : cases) {
        grid_name const name = grid_name::parse(c.text);
        any_grid const grid = find_grid(name);
        EXPECT_EQ(grid.name(), name.text());
        EXPECT_EQ(grid.bits(), c.bits) << c.text;
        EXPECT_EQ(grid.numbers().low, c.low) << c.text;
        EXPECT_EQ(grid.numbers().high, c.high) << c.text;
    }
    for (auto const* const text : {"", "int0", "int9", "int", "sym", "e0m3", "e4m4", "e8m0", "fp5", "fp4sym", "nf4sym",
                                   "E2M1", "int4 ", "intsym", "e2m1@tensor"}) {
        EXPECT_EQ(failure_message([&] { find_grid(grid_name::parse(text)); }),
                  "grid '" + std::string(text) + "': is unknown");
    }
}

TEST(splits_of, are_those_llm_fp4_searches) {
    auto const splits = [](char const* text) {
        std::vector<std::string> names;
        for (grid_name const& name : splits_of(grid_name::parse(text))) {
            EXPECT_FALSE(name.symmetric);
            names.push_back(name.text());
        }
        return names;
    };
    using names = std::vector<std::string>;
    EXPECT_EQ(splits("fp4"), (names{"e2m1", "e3m0", "e1m2"}));
    EXPECT_EQ(splits("fp6"), (names{"e3m2", "e5m0", "e4m1", "e2m3", "e1m4"}));
    EXPECT_EQ(splits("fp8"), (names{"e4m3", "e5m2", "e3m4", "e2m5", "e1m6"}));
    EXPECT_EQ(splits("e2m1"), names{"e2m1"});
    EXPECT_EQ(splits("nf4"), names{"nf4"});
    EXPECT_EQ(splits_of(grid_name::parse("int8sym")), std::vector{grid_name::parse("int8sym")});
}

} // namespace

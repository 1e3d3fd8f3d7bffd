// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <filesystem>
#include <utility>

#include <gtest/gtest.h>

#include "detent/calibrate/activation_store.hpp"
#include "io/failure_message.hpp"

namespace detent {
namespace {

TEST(activation_store, has_the_same_numbers_in_memory_and_in_a_file) {
    matrix const x = matrix::Random(50, 7);
    activation_space space(50 * 7 * sizeof(float), std::filesystem::temp_directory_path());
    activation_store memory(space, 50, 7), file(space, 50, 7);
    EXPECT_FALSE(memory.in_file());
    EXPECT_TRUE(file.in_file());
    for (activation_store* s : {&memory, &file}) {
        s->write(0, x.topRows(20));
        s->write(20, x.bottomRows(30));
        matrix room;
        EXPECT_TRUE(s->read(13, 22, room) == x.middleRows(13, 22));
        EXPECT_TRUE(s->all() == x);
        matrix const wide = matrix::Random(3, 20);
        s->write(4, wide.middleCols(5, 7)); // rows that are not one after the other
        EXPECT_TRUE(s->all().middleRows(4, 3) == wide.middleCols(5, 7));
        EXPECT_TRUE(s->all().row(7) == x.row(7));
        s->release();
        EXPECT_TRUE(s->all().row(8) == x.row(8));
    }
}

TEST(activation_store, gives_its_memory_back) {
    activation_space space(100 * sizeof(float), std::filesystem::temp_directory_path());
    {
        activation_store const a(space, 10, 10);
        EXPECT_FALSE(a.in_file());
        EXPECT_TRUE(activation_store(space, 1, 1).in_file());
    }
    activation_store b(space, 10, 10);
    EXPECT_FALSE(b.in_file());
    b = activation_store(); // the old one goes with the temporary
    EXPECT_FALSE(activation_store(space, 10, 10).in_file());
    EXPECT_TRUE(b.empty());
}

TEST(activation_store, names_the_directory_where_no_file_can_be) {
    activation_space space(0, "/nowhere");
    auto const message = failure_message([&] { activation_store const a(space, 1, 1); });
    EXPECT_EQ(message.find("/nowhere: no temporary file can be created there"), 0U) << message;
}

} // namespace
} // namespace detent

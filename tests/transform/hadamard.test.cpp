// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <string>

#include <gtest/gtest.h>

#include "detent/transform/hadamard.hpp"
#include "detent/transform/transform.hpp"
#include "io/failure_message.hpp"

namespace {

using namespace detent;

static_assert(Transform<hadamard<>> && Transform<hadamard<128>> && Transform<hadamard<1>>);

TEST(hadamard, takes_the_widest_block_that_divides_the_inputs) {
    EXPECT_EQ(hadamard_width(128, 4096), 128);
    EXPECT_EQ(hadamard_width(128, 320), 64);
    EXPECT_EQ(hadamard_width(128, 96), 32);
    EXPECT_EQ(hadamard_width(128, 7), 1);
    EXPECT_EQ(hadamard_width(1, 4096), 1);
    for (index_t features = 1; features <= 300; ++features) {
        for (index_t const width : {1, 2, 16, 128, 1024}) {
            index_t expected = width; // by trying
            while (features % expected != 0) {
                expected /= 2;
            }
            EXPECT_EQ(hadamard_width(width, features), expected) << width << ' ' << features;
        }
    }
}

TEST(hadamard, is_a_rotation_of_blocks) {
    for (index_t const features : {4096, 320, 96, 7}) {
        matrix const w = matrix::Zero(1, features);
        index_t const width = hadamard_width(128, features);
        input_map const expected(block_hadamard{width}, features);
        EXPECT_EQ(hadamard<128>{}.fit(w, {}), expected);
        EXPECT_EQ(hadamard<>{}.fit(w, {}), expected); // whose width is 128 too
        EXPECT_EQ(hadamard<>{128}.fit(w, {}), expected);
    }
    EXPECT_EQ(hadamard<16>{}.fit(matrix::Zero(1, 320), {}), input_map(block_hadamard{16}, 320));
    EXPECT_EQ(hadamard<>{16}.fit(matrix::Zero(1, 320), {}), input_map(block_hadamard{16}, 320));
}

TEST(hadamard, refuses_a_width_that_is_no_power_of_two) {
    for (index_t const width : {100, 0, -1, -2, 3}) {
        EXPECT_EQ(failure_message([&] { hadamard<>{width}.fit(matrix::Zero(1, 400), {}); }),
                  "hadamard: blocks of " + std::to_string(width) + " are no power of two");
    }
}

} // namespace

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <gtest/gtest.h>

#include "detent/grid/fp_grid.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/kernel/multiply.hpp"
#include "grid/own_grid.hpp"
#include "kernel/products.hpp"

namespace {

using namespace detent;
using namespace detent::test;

TEST(multiply, matches_the_reference_for_few_and_many_tokens) {
    for (index_t const tokens : {1, 2, 9, 15, 16, 17, 65, 130, 255, 256, 257}) {
        expect_product(multiply, random_packed(int_grid<4>{}, {131, 43}, {1, 16}), tokens);
        expect_product(multiply, random_packed(e4m3{}, {5, 43}, {2, 16}), tokens);
        ASSERT_FALSE(HasFatalFailure());
    }
}

TEST(multiply, matches_the_reference_for_any_number_of_rows) {
    for (index_t const rows : {1, 2, 15, 16, 17, 63, 64, 65, 127, 128, 129, 200}) {
        for (index_t const tokens : {1, 20}) {
            expect_product(multiply, random_packed(int_grid<2>{}, {rows, 33}, {1, 0}), tokens);
            ASSERT_FALSE(HasFatalFailure());
        }
    }
}

TEST(multiply, takes_a_users_grid) {
    for (index_t const tokens : {5, 20}) {
        expect_product(multiply, random_packed(powers_of_two{}, {7, 1030}, {1, 100}), tokens);
        expect_product(multiply, random_packed(five{}, {7, 1030}, {3, 100}), tokens);
    }
}

TEST(multiply, an_empty_batch_is_no_error) {
    packed_matrix const w = random_packed(int_grid<4>{}, {3, 8}, {1, 0});
    kernel::multiply(w.view(), nullptr, 8, 0, nullptr, 3);
}

TEST(multiply, threads_do_not_change_a_bit) {
    expect_threads_change_nothing(multiply, random_packed(int_grid<4>{}, {150, 1100}, {1, 48}));
}

} // namespace

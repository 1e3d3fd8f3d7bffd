// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <gtest/gtest.h>

#include "detent/core/error.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/matrix/dequantize.hpp"
#include "detent/matrix/quantized_matrix.hpp"
#include "matrix/random_solution.hpp"

namespace {

using namespace detent;

TEST(quantized_matrix, is_its_solution_packed) {
    using grid = int_grid<4>;
    solution s = test::random_solution(grid{}, {4, 21}, {1, 5}, 2);
    s.report.loss = 1.5;
    quantized_matrix const w(grid{}, per_group<>{5}, s);
    EXPECT_EQ(w.granularity(), per_group<>{5});
    EXPECT_EQ(w.shape(), (extents{4, 21}));
    EXPECT_EQ(w.packed(), pack(s));
    EXPECT_EQ(w.view().codes, w.packed().codes.data());
    EXPECT_EQ(w.bits_per_weight(), w.packed().bits_per_weight());
    EXPECT_EQ(w.report().loss, 1.5);
    static_assert(std::same_as<decltype(w)::grid_type, grid>);
}

TEST(quantized_matrix, at_takes_inputs_not_stored_columns) {
    using grid = int_grid<4>;
    solution s = test::random_solution(grid{}, {4, 21}, {1, 5}, 2);
    for (bool const reordered : {false, true}) {
        if (reordered) {
            s.map = input_map(permutation{test::random_order(21, 4)}, 21);
        }
        quantized_matrix const w(grid{}, per_group<>{5}, s);
        matrix const dense = dequantize(w.packed());
        for (index_t r = 0; r < 4; ++r) {
            for (index_t c = 0; c < 21; ++c) {
                EXPECT_EQ(w.at(r, c), dense(r, c));
            }
        }
    }
}

TEST(quantized_matrix, refuses_solutions_that_do_not_fit_its_types) {
    using with_zeros = int_grid<4>;
    using without = int_grid<4, zero::none>;
    solution const zeros = test::random_solution(with_zeros{}, {4, 21}, {1, 5}, 2);
    solution const none = test::random_solution(without{}, {4, 21}, {1, 5}, 2);
    EXPECT_NO_THROW(quantized_matrix(with_zeros{}, per_group<5>{}, zeros));
    EXPECT_THROW(quantized_matrix(without{}, per_group<5>{}, zeros), error);
    EXPECT_THROW(quantized_matrix(with_zeros{}, per_group<5>{}, none), error);
    EXPECT_THROW(quantized_matrix(without{}, per_group<4>{}, none), error);
    EXPECT_THROW(quantized_matrix(without{}, per_channel{}, none), error);
    EXPECT_THROW(quantized_matrix(without{}, per_tensor{}, none), error);
    EXPECT_NO_THROW(quantized_matrix(without{}, per_tile{1, 5}, none));
    solution const rows = test::random_solution(without{}, {4, 21}, {1, 21}, 2);
    EXPECT_NO_THROW(quantized_matrix(without{}, per_channel{}, rows));
    EXPECT_NO_THROW(quantized_matrix(without{}, per_group<128>{}, rows));
}

} // namespace

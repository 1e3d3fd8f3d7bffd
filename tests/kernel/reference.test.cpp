// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <gtest/gtest.h>

#include "detent/grid/fp_grid.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/kernel/reference.hpp"
#include "kernel/products.hpp"

namespace {

using namespace detent;
using namespace detent::test;

TEST(reference_dot, is_the_sum_over_dequantized_weights) {
    packed_matrix const w = random_packed(int_grid<3>{}, {5, 19}, {2, 4});
    inputs const x(1, 19);
    for (index_t r = 0; r < 5; ++r) {
        double sum = 0;
        for (index_t k = 0; k < 19; ++k) {
            sum += double{w.stored_at(r, k)} * x.row(0)[k];
        }
        EXPECT_NEAR(kernel::reference_dot(w.view(), r, x.row(0)), sum, 1e-12);
    }
}

} // namespace

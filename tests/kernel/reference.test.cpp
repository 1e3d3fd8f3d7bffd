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
    expect_reference_sums_weights(random_packed(int_grid<3>{}, {5, 19}, {2, 4}));
}

} // namespace

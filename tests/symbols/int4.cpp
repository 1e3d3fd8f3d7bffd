// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "detent/grid/int_grid.hpp"
#include "detent/quantizer/typed_product.hpp"

/// The products of a program that has matrices of one type.
void multiply_both_ways(detent::quantized_matrix<detent::int_grid<4>, detent::per_group<128>> const& w,
                        detent::matrix_view x, detent::matrix_ref y, detent::matrix_ref back) {
    multiply(w, x, y);
    multiply_transposed(w, y, back);
    y.transpose() = w * x.transpose();
}

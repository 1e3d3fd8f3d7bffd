// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "detent/core/finite.hpp"
#include "detent/core/index.hpp"
#include "detent/nn/products.hpp"
#include "detent/simd/dot.hpp"

namespace detent::inline DETENT_ABI::nn {

// Matrices lie in memory by rows, whose distance is the stride behind their pointer.

/// Overwrites the upper triangle of `a` (n, n), which alone is read, by the upper triangular R with a = R R^T and
/// returns true; false, with some of it overwritten, where a pivot is not positive or not finite. Row by row and not in
/// blocks: for matrices that fit the first-level caches.
template <class T> bool factor_upper(index_t n, T* a, index_t stride) {
    for (index_t j = n - 1; j >= 0; --j) {
        T* const row_j = a + j * stride;
        index_t const right = n - j - 1; // columns of R that are there
        T const pivot = row_j[j] - simd::dot(row_j + j + 1, row_j + j + 1, right);
        if (!(pivot > 0) || !is_finite(pivot)) {
            return false;
        }
        row_j[j] = std::sqrt(pivot);
        for (index_t i = 0; i < j; ++i) {
            T* const row_i = a + i * stride;
            row_i[j] = (row_i[j] - simd::dot(row_i + j + 1, row_j + j + 1, right)) / row_j[j];
        }
    }
    return true;
}

/// Writes to `inverse` (n, n) the inverse of the upper triangular `r` (n, n), zeros below the diagonal included; what
/// lies below the diagonal of `r` is not read. For matrices that fit the first-level caches.
template <class T> void invert_upper(index_t n, T const* r, index_t r_stride, T* inverse, index_t inverse_stride) {
    for (index_t i = n - 1; i >= 0; --i) { // row i of R R^-1 = I, with the later rows of R^-1
        T const* const row = r + i * r_stride;
        T* const solved = inverse + i * inverse_stride;
        std::fill_n(solved, n, T{0});
        for (index_t k = i + 1; k < n; ++k) {
            simd::add_multiple(-row[k], inverse + k * inverse_stride + k, solved + k, n - k);
        }
        for (index_t k = i + 1; k < n; ++k) {
            solved[k] /= row[i];
        }
        solved[i] = 1 / row[i];
    }
}

/// How many columns are divided by at a time: by the inverse of their triangle.
inline constexpr index_t columns_divided = 64;

/// Multiplies `x` (rows, n) by the `inverse` (n, n), which is read through any strides and may be a transpose.
template <class T> void multiply_by(index_t rows, index_t n, T* x, index_t x_stride, simd::strided<T> inverse) {
    std::vector<T> before(static_cast<std::size_t>(rows * n)); // (rows, n)
    for (index_t row = 0; row < rows; ++row) {
        std::copy_n(x + row * x_stride, n, before.data() + row * n);
        std::fill_n(x + row * x_stride, n, T{0});
    }
    products<T>::add(rows, n, n, 1, {before.data(), n}, inverse, x, x_stride);
}

/// Overwrites `x` (rows, n) by x R^-1 for an upper triangular `r` (n, n), of which the upper triangle is read. The bits
/// of a row do not depend on which rows are there, unless the products are those of a BLAS.
template <class T> void divide_by_upper(index_t rows, index_t n, T* x, index_t x_stride, T const* r, index_t r_stride) {
    std::vector<T> inverse(static_cast<std::size_t>(columns_divided * columns_divided));
    for (index_t begin = 0; begin < n; begin += columns_divided) {
        index_t const width = std::min(columns_divided, n - begin);
        products<T>::add(rows, width, begin, -1, {x, x_stride}, {r + begin, r_stride}, x + begin, x_stride);
        invert_upper(width, r + begin * r_stride + begin, r_stride, inverse.data(), width);
        multiply_by(rows, width, x + begin, x_stride, simd::strided<T>{inverse.data(), width});
    }
}

/// Overwrites `x` (rows, n) by x R^-T; see `divide_by_upper`.
template <class T>
void divide_by_transposed_upper(index_t rows, index_t n, T* x, index_t x_stride, T const* r, index_t r_stride) {
    std::vector<T> inverse(static_cast<std::size_t>(columns_divided * columns_divided));
    index_t const last = ceil_div(n, columns_divided) - 1;
    for (index_t begin = last * columns_divided; begin >= 0; begin -= columns_divided) {
        index_t const end = std::min(begin + columns_divided, n);
        index_t const width = end - begin;
        products<T>::add(rows, width, n - end, -1, {x + end, x_stride},
                         simd::strided<T>{r + begin * r_stride + end, r_stride}.transpose(), x + begin, x_stride);
        invert_upper(width, r + begin * r_stride + begin, r_stride, inverse.data(), width);
        multiply_by(rows, width, x + begin, x_stride, simd::strided<T>{inverse.data(), width}.transpose());
    }
}

} // namespace detent::inline DETENT_ABI::nn

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <utility>

#include "detent/core/eigen.hpp"
#include "detent/core/error.hpp"
#include "detent/core/executor.hpp"
#include "detent/core/finite.hpp"
#include "detent/core/same_bits.hpp"
#include "detent/matrix/solution.hpp"
#include "detent/nn/products.hpp"
#include "detent/simd/dot.hpp"

namespace detent::inline DETENT_ABI {

/// What each row of a solution for `w` (out, in) loses at the layer's output, d H d^T for d = q - w, up to the unit of
/// `h` (in, in), both triangles.
template <class Scalar = float>
basic_vector<double> row_losses(matrix_view w, solution const& s, matrix const& h, executor_ref executor = {}) {
    matrix stored = decode(s); // (out, in)
    for (index_t k = 0; k < s.weak.count(); ++k) {
        for (index_t row = 0; row < w.rows(); ++row) {
            stored(row, s.weak.columns()[static_cast<std::size_t>(k)]) = s.weak.at(k, row);
        }
    }
    matrix d = s.map.back(stored, executor); // (out, in)
    index_t const in = d.cols();
    basic_vector<double> losses(d.rows());
    executor.for_pieces(d.rows(), 64, [&](index_t begin, index_t end) {
        for (index_t row = begin; row < end; ++row) {
            simd::add_multiple(Scalar{-1}, w.data() + row * w.outerStride(), &d(row, 0), in);
        }
        basic_matrix<Scalar> product;
        product.setZero(end - begin, in);
        nn::products<Scalar>::add(end - begin, in, in, 1, {&d(begin, 0), in}, {h.data(), in}, product.data(), in);
        for (index_t row = begin; row < end; ++row) {
            double loss = 0;
            for (index_t col = 0; col < in; ++col) {
                loss += static_cast<double>(product(row - begin, col) * d(row, col));
            }
            losses(row) = loss;
        }
    });
    return losses;
}

/// Of two solutions for the same weights, the better one of each row of tiles, given what every row loses; where they
/// store columns differently, the better one as a whole. The report is that of `a`. @throws error where neither loses a
/// finite amount.
template <class Scalar>
solution better_rows(solution a, basic_vector<Scalar> const& losses_a, solution b,
                     basic_vector<Scalar> const& losses_b) {
    bool const alike = a.tile == b.tile && a.scales.tiles == b.scales.tiles && a.map == b.map &&
                       a.tile_of == b.tile_of && same_bits(a.table, b.table) && a.weak.columns() == b.weak.columns();
    auto const is_better = [](double loss_b, double loss_a) {
        expect_valid(is_finite(loss_a) || is_finite(loss_b), "choice of rows",
                     "finds no error that is finite; are weights or inputs too large?");
        return comparable_cost(loss_b) < comparable_cost(loss_a);
    };
    if (!alike) {
        return is_better(losses_b.sum(), losses_a.sum()) ? std::move(b) : std::move(a);
    }
    for (index_t i = 0; i < a.scales.tiles.rows; ++i) {
        index_t const top = i * a.tile.rows;
        index_t const count = std::min(a.tile.rows, a.shape.rows - top);
        if (!is_better(losses_b.segment(top, count).sum(), losses_a.segment(top, count).sum())) {
            continue;
        }
        for (index_t j = 0; j < a.scales.tiles.cols; ++j) {
            a.scales.set(i, j, b.scales.at(i, j));
        }
        for (index_t row = top; row < top + count; ++row) {
            std::copy_n(&b.codes[static_cast<std::size_t>(row * a.shape.cols)], a.shape.cols, &a.code_at(row, 0));
            for (index_t k = 0; k < a.weak.count(); ++k) {
                a.weak.set(k, row, b.weak.at(k, row));
            }
        }
    }
    return a;
}

#if defined(DETENT_COMPILED)
extern template basic_vector<double> row_losses<float>(matrix_view, solution const&, matrix const&, executor_ref);
extern template solution better_rows<double>(solution, basic_vector<double> const&, solution,
                                             basic_vector<double> const&);
#endif

} // namespace detent::inline DETENT_ABI

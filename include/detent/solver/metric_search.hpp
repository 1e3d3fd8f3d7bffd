// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

#include "detent/core/eigen.hpp"
#include "detent/core/executor.hpp"
#include "detent/core/finite.hpp"
#include "detent/matrix/activation_quantizer.hpp"
#include "detent/nn/products.hpp"
#include "detent/solver/output_search.hpp"
#include "detent/solver/problem.hpp"

namespace detent::inline DETENT_ABI {

/// How far a layer's output o^ is from what it should be, o; less is better.
enum class output_metric {
    squares,          ///< (o - o^)^2, which needs no more than the Hessian of the inputs
    absolute,         ///< |o - o^|
    weighted_squares, ///< |o| (o - o^)^2
    doubly_weighted,  ///< o^2 (o - o^)^2
    cosine            ///< 1 - cos(o, o^), over the inputs for a row of weights and over the outputs for an input
};

/// The distance of `n` outputs by that metric, their sum but for the cosine.
inline double output_distance(output_metric metric, index_t n, float const* o, index_t stride, float const* rounded,
                              index_t rounded_stride) {
    double sum = 0;
    double squares = 0;
    double rounded_squares = 0;
    for (index_t i = 0; i < n; ++i) {
        double const x = o[i * stride];
        double const y = rounded[i * rounded_stride];
        double const missed = x - y;
        switch (metric) {
        case output_metric::squares:
            sum += missed * missed;
            break;
        case output_metric::absolute:
            sum += std::abs(missed);
            break;
        case output_metric::weighted_squares:
            sum += std::abs(x) * missed * missed;
            break;
        case output_metric::doubly_weighted:
            sum += x * x * missed * missed;
            break;
        case output_metric::cosine:
            sum += x * y;
            squares += x * x;
            rounded_squares += y * y;
            break;
        }
    }
    if (metric == output_metric::cosine) {
        double const lengths = std::sqrt(squares * rounded_squares);
        if (!is_finite(lengths)) { // outputs that are no numbers have no direction, not even a wrong one
            return lengths;
        }
        return lengths > 0 ? 1 - sum / lengths : squares > 0 ? 1 : 0;
    }
    return sum;
}

/// The range searches of LLM-FP4 for any metric. All inputs pass through the layer for every candidate, which takes as
/// many times longer than `output_search` as there are inputs for each feature; some hundreds of them do.
struct metric_search {
    output_metric metric = output_metric::absolute;
    range_candidates candidates = {};

    /// Codes and scales for `w` (out, in), for inputs that were `x` (token, in) and are `rounded`. The loss in the
    /// report is the distance, summed over the outputs; it is not finite where no distance of a range is. @throws error
    /// when a weight is not finite, or as `range_candidates`.
    template <class Scalar = float>
    solution solve(matrix_view w, matrix_view x, matrix_view rounded, problem const& p,
                   executor_ref executor = {}) const {
        solution s = p.begin(w);
        p.fit_all(w, s, executor);
        index_t const tokens = x.rows();
        basic_vector<double> losses(s.scales.tiles.rows);
        executor.for_each(s.scales.tiles.rows, [&](index_t tile_row) {
            index_t const top = tile_row * s.tile.rows;
            index_t const height = std::min(s.tile.rows, w.rows() - top);
            auto const o = product<Scalar>(middle_rows(w, top, height), x); // (height, token)
            matrix chosen(height, w.cols());
            for (index_t tile = 0; tile < s.scales.tiles.cols; ++tile) {
                round(w, top, tile, s.scales.at(tile_row, tile), chosen, s, p);
            }
            for (index_t tile = 0; tile < s.scales.tiles.cols; ++tile) {
                tile_scale const initial = s.scales.at(tile_row, tile);
                auto const ratios = candidates.ratios(initial.scale, p.split());
                auto const at = [&](float ratio) { return ratio == 1 ? initial : p.widened(initial, ratio); };
                double least = std::numeric_limits<double>::infinity();
                tile_scale best = initial;
                for (std::size_t i = 0; i < ratios.size(); ++i) {
                    round(w, top, tile, at(ratios[i]), chosen, s, p);
                    auto const now = product<Scalar>(chosen, rounded); // (height, token)
                    double distance = 0;
                    for (index_t row = 0; row < height; ++row) {
                        distance += output_distance(metric, tokens, &o(row, 0), 1, &now(row, 0), 1);
                    }
                    if (comparable_cost(distance) < least) {
                        least = distance;
                        best = at(ratios[i]);
                    }
                }
                s.scales.set(tile_row, tile, best);
                round(w, top, tile, best, chosen, s, p);
                losses(tile_row) = least;
            }
        });
        s.report.loss = losses.sum();
        return s;
    }

    /// The distance, summed over the inputs `x` (token, in), of a layer whose weights are `q` (out, in) in place of `w`
    /// and whose input is rounded.
    template <class Scalar = float>
    double distance(matrix_view x, matrix_view w, matrix_view q, activation_quantizer const& input,
                    executor_ref executor = {}) const {
        constexpr index_t piece = 64;
        basic_vector<double> sums;
        sums.setZero(ceil_div(x.rows(), piece));
        executor.for_pieces(x.rows(), piece, [&](index_t begin, index_t end) {
            matrix_view const inputs = middle_rows(x, begin, end - begin);
            auto const o = product<Scalar>(inputs, w); // (token, out)
            auto const now = product<Scalar>(input.round(inputs), q);
            for (index_t t = 0; t < inputs.rows(); ++t) {
                sums(begin / piece) += output_distance(metric, o.cols(), &o(t, 0), 1, &now(t, 0), 1);
            }
        });
        return sums.sum();
    }

    friend constexpr bool operator==(metric_search const&, metric_search const&) = default;

private:
    /// a b^T.
    template <class Scalar>
    static basic_matrix<Scalar> product(basic_matrix_view<Scalar> a, basic_matrix_view<Scalar> b) {
        basic_matrix<Scalar> c;
        c.setZero(a.rows(), b.rows());
        nn::products<Scalar>::add(a.rows(), b.rows(), a.cols(), 1, {a.data(), a.outerStride()},
                                  simd::strided<Scalar>{b.data(), b.outerStride()}.transpose(), c.data(), b.rows());
        return c;
    }

    /// Writes the codes of a tile and the numbers they stand for, to `numbers` (rows of the tile, in).
    static void round(matrix_view w, index_t top, index_t tile, tile_scale t, matrix& numbers, solution& s,
                      problem const& p) {
        index_t const col = s.first_of_tile(tile);
        index_t const n = s.first_of_tile(tile + 1) - col;
        std::vector<float> const scales(static_cast<std::size_t>(n), t.scale);
        std::vector<float> const zeros(static_cast<std::size_t>(n), t.zero);
        for (index_t row = 0; row < numbers.rows(); ++row) {
            p.round(n, w.data() + (top + row) * w.outerStride() + col, scales.data(), zeros.data(),
                    &s.code_at(top + row, col), &numbers(row, col));
        }
    }
};

} // namespace detent::inline DETENT_ABI

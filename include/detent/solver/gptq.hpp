// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "detent/solver/factor.hpp"
#include "detent/solver/problem.hpp"
#include "detent/solver/rtn.hpp"
#include "detent/solver/sweep.hpp"

namespace detent::inline DETENT_ABI {

/// GPTQ: rounds the columns of a weight matrix one after the other and moves the error of each to the columns not yet
/// rounded, weighted by the Hessian of the layer's output error (Frantar et al., section 3).
///
/// Groups get their scales when the sweep reaches them, from weights that carry all errors made so far; whole rows,
/// whole matrices and static groups get theirs from the original weights. Pieces of rows are independent tasks.
/// `Scalar` is the type of the sweep; the factorization is always in double.
template <class Scalar = double> struct gptq {
    using evidence = hessian;

    double damping = 0.01;         ///< added to H, relative to its mean diagonal element
    bool activation_order = false; ///< sweep in descending order of the diagonal of H
    bool static_groups = false;    ///< choose the scales of groups before the sweep
    /// Choose the scales of a group from weights that miss the errors made since the last multiple of this many
    /// columns, as the published code does with 128; 0 to miss none.
    index_t stale_columns = 0;
    index_t leaf = 16; ///< columns rounded one by one; beyond, errors travel in matrix products

    /// Codes and scales for `w` (out, in). Where `h` has seen nothing or cannot be factored, it rounds to nearest and
    /// the report says so. @throws error when a weight or `h` is not finite, or their sizes differ.
    solution solve(matrix_view w, hessian const& h, problem const& p, executor_ref executor = {}) const {
        if (h.features() != w.cols()) {
            throw error("hessian", "has " + std::to_string(h.features()) + " features, the weights have " +
                                       std::to_string(w.cols()) + " columns");
        }
        solution s = p.begin(w);
        hessian_factor f;
        if (h.tokens() > 0) {
            // A task of its own: products inside the factorization then run as they would with any executor.
            executor.for_each(1, [&](index_t) { f = factor(h, damping, activation_order); });
        }
        if (f.r.size() == 0) {
            s = rtn{}.solve(w, {}, p, executor);
            s.report.damping_raised = f.damping_raised;
            s.report.fallback = h.tokens() == 0 ? "no input was ever seen" : "the Hessian could not be factored";
            return s;
        }
        s.report.damping = f.damping;
        s.report.damping_raised = f.damping_raised;
        s.report.dead_columns = std::ranges::count(f.dead, true);

        matrix weights = w; // (out, in)
        for (index_t j = 0; j < w.cols(); ++j) {
            if (f.dead[static_cast<std::size_t>(j)]) {
                weights.col(j).setZero();
            }
        }
        bool const fit_on_the_way = s.tile.cols < w.cols() && !static_groups;
        if (!fit_on_the_way) {
            p.fit_all(weights, s, executor);
        } else if (activation_order) {
            s.order = f.order;
        }
        basic_matrix<Scalar> r; // (in, in), upper triangular
        if constexpr (std::is_same_v<Scalar, double>) {
            r = std::move(f.r);
        } else {
            r = f.r.template cast<Scalar>();
        }

        // A piece is whole rows of tiles where it fits their scales itself.
        index_t const piece = fit_on_the_way ? ceil_div(64, s.tile.rows) * s.tile.rows : 64;
        basic_vector<double> losses = basic_vector<double>::Zero(ceil_div(w.rows(), piece));
        executor.for_pieces(w.rows(), piece, [&](index_t first, index_t last) {
            auto const rows = static_cast<std::size_t>(last - first);
            std::vector<tile_scale> scales(rows);
            std::vector<code> codes(rows);
            auto const fit = [&](index_t begin, index_t, matrix const& group) {
                for (index_t row = 0; row < group.rows(); row += s.tile.rows) {
                    s.scales.set((first + row) / s.tile.rows, begin / s.tile.cols,
                                 p.fit(group.middleRows(row, std::min(s.tile.rows, group.rows() - row))));
                }
            };
            auto const round = [&](index_t j, float const* t, float* q) {
                index_t const col = s.order.empty() ? f.order[static_cast<std::size_t>(j)] : j; // where it is stored
                for (std::size_t i = 0; i < rows; ++i) {
                    scales[i] = s.scale_at(first + static_cast<index_t>(i), col);
                }
                p.round(last - first, t, scales.data(), codes.data(), q);
                for (std::size_t i = 0; i < rows; ++i) {
                    s.code_at(first + static_cast<index_t>(i), col) = codes[i];
                }
            };
            matrix const ordered = take_columns(weights.middleRows(first, last - first), f.order); // (rows, in)
            column_sweep<Scalar> sweep(ordered.template cast<Scalar>(), r);
            sweep.group = fit_on_the_way ? s.tile.cols : 0;
            sweep.stale = stale_columns;
            sweep.leaf = leaf;
            losses(first / piece) = sweep.run(fit, round);
        });
        s.report.loss = losses.sum();
        return s;
    }

    friend constexpr bool operator==(gptq const&, gptq const&) = default;
};

} // namespace detent::inline DETENT_ABI

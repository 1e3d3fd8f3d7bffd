// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <iterator>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "detent/evidence/factor.hpp"
#include "detent/solver/rtn.hpp"
#include "detent/solver/solver.hpp"
#include "detent/solver/sweep.hpp"

namespace detent::inline DETENT_ABI {

/// GPTQ: rounds the columns of a weight matrix one after the other and moves the error of each to the columns not yet
/// rounded, weighted by the Hessian of the layer's output error (Frantar et al., section 3).
///
/// Groups get their scales when the sweep reaches them, from weights that carry all errors made so far; whole rows,
/// whole matrices and static groups get theirs from the original weights, as do tiles whose scales depend on where they
/// lie. Groups in activation order are stored in that order, and inputs are put into it by the map. Inputs that were
/// always zero have their weights rounded to nearest. Pieces of rows are independent tasks.
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
    /// Round to nearest, and say why in `solve_report::fallback`, where no token was seen or H cannot be factored, as
    /// for an expert that no token chose; else that is an error.
    bool or_rtn = false;

    /// Codes and scales for `w` (out, in). @throws error when a weight or `h` is not finite, their sizes differ, `h`
    /// has seen nothing or cannot be factored (but see `or_rtn`), or an option is out of range.
    solution solve(matrix_view w, hessian const& h, problem const& p, executor_ref executor = {}) const;

    /// How `solve` factors the Hessian.
    factor_options factoring() const { return {damping, activation_order, or_rtn}; }

    /// Codes and scales for `w` from the Hessian factored as `factoring` says, which layers that read the same inputs
    /// can share.
    solution solve(matrix_view w, hessian_factor const& f, problem const& p, executor_ref executor = {}) const;

    friend constexpr bool operator==(gptq const&, gptq const&) = default;

private:
    static basic_matrix<double> const& in_scalar(basic_matrix<double> const& r) requires std::same_as<Scalar, double> {
        return r;
    }
    static basic_matrix<Scalar> in_scalar(basic_matrix<double> const& r) { return to_float(r); }

    /// Writes the `codes` of columns one after the other to so many `rows` of `s` from `first` on, where column j of
    /// them is `stored[j]`.
    static void store(std::vector<code> const& codes, index_t rows, std::vector<std::int32_t> const& stored,
                      index_t first, solution& s) {
        constexpr index_t block = 64; // columns at once: a transposition meets few cache lines at a time
        index_t const in = std::ssize(stored);
        for (index_t begin = 0; begin < in; begin += block) {
            for (index_t row = 0; row < rows; ++row) {
                code* const target = &s.code_at(first + row, 0);
                for (index_t j = begin; j < std::min(begin + block, in); ++j) {
                    target[stored[static_cast<std::size_t>(j)]] = codes[static_cast<std::size_t>(j * rows + row)];
                }
            }
        }
    }
};

template <class Scalar>
solution gptq<Scalar>::solve(matrix_view w, hessian const& h, problem const& p, executor_ref executor) const {
    expect_features(h.features(), w); // before the work
    problem::expect_weights(w);
    return solve(w, factor(h, factoring(), executor), p, executor);
}

template <class Scalar>
solution gptq<Scalar>::solve(matrix_view w, hessian_factor const& f, problem const& p, executor_ref executor) const {
    expect_features(std::ssize(f.order), w);
    expect_option(leaf > 0, "gptq", "leaf", leaf, "positive");
    expect_option(stale_columns >= 0, "gptq", "number of stale columns", stale_columns, "0 or more");
    solution s = p.begin(w);
    if (f.r.size() == 0) {
        s = rtn{}.solve(w, {}, p, executor);
        f.describe(s.report);
        return s;
    }
    f.describe(s.report);
    bool const fit_on_the_way = s.tile.cols < w.cols() && !static_groups && !p.placed();
    if (!fit_on_the_way) {
        p.fit_all(w, s, executor);
    } else if (activation_order) {
        s.map = input_map(permutation{f.order}, w.cols());
    }
    auto const& r = in_scalar(f.r);

    std::vector<std::int32_t> stored = f.order; // where each column of the sweep is stored
    if (!s.map.empty()) {
        std::iota(stored.begin(), stored.end(), 0);
    }
    // Pieces are large, since each reads the whole factor, and no power of 2, which caches take badly.
    index_t const share = std::clamp<index_t>(ceil_div(w.rows(), executor.workers()), 16, 504);
    index_t const piece = fit_on_the_way ? ceil_div(share, s.tile.rows) * s.tile.rows : share; // whole tiles to fit
    std::vector<double> losses(static_cast<std::size_t>(w.rows()));
    auto const make_sweep = [&] {
        column_sweep<Scalar> sweep(r);
        sweep.group = fit_on_the_way ? s.tile.cols : 0;
        sweep.stale = stale_columns;
        sweep.leaf = leaf;
        return sweep;
    };
    executor.for_pieces(w.rows(), piece, make_sweep, [&](auto& sweep, index_t first, index_t last) {
        index_t const rows = last - first;
        float_vector scales(rows);
        float_vector zeros(rows);
        index_t tile_col = -1;                                              // of `scales` and `zeros`
        std::vector<code> codes(static_cast<std::size_t>(w.cols() * rows)); // by columns, in the order of the sweep
        auto const fit = [&](index_t begin, index_t, matrix const& group) {
            for (index_t row = 0; row < rows; row += s.tile.rows) {
                s.scales.set((first + row) / s.tile.rows, begin / s.tile.cols,
                             p.fit(middle_rows(group, row, std::min(s.tile.rows, rows - row)), {first + row, begin}));
            }
        };
        auto const round = [&](index_t j, float const* t, float* q) {
            if (index_t const now = s.tile_at(stored[static_cast<std::size_t>(j)]); now != tile_col) {
                tile_col = now;
                for (index_t row = 0; row < rows; ++row) {
                    tile_scale const shared = s.scales.at((first + row) / s.tile.rows, tile_col);
                    scales(row) = shared.scale;
                    zeros(row) = shared.zero;
                }
            }
            p.round(rows, t, scales.data(), zeros.data(), codes.data() + j * rows, q);
        };
        auto const& loss = sweep.run(middle_rows(w, first, rows), f.order, fit, round);
        std::copy_n(loss.data(), rows, losses.data() + first);
        store(codes, rows, stored, first, s);
    });
    s.report.loss = std::accumulate(losses.begin(), losses.end(), 0.0);
    return s;
}

#if defined(DETENT_COMPILED)
extern template solution gptq<double>::solve(matrix_view, hessian const&, problem const&, executor_ref) const;
extern template solution gptq<double>::solve(matrix_view, hessian_factor const&, problem const&, executor_ref) const;
extern template solution gptq<float>::solve(matrix_view, hessian const&, problem const&, executor_ref) const;
extern template solution gptq<float>::solve(matrix_view, hessian_factor const&, problem const&, executor_ref) const;
#endif

} // namespace detent::inline DETENT_ABI

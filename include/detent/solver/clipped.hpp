// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include "detent/solver/clip_learning.hpp"
#include "detent/solver/rtn.hpp"
#include "detent/solver/solver.hpp"

namespace detent::inline DETENT_ABI {

/// Learnable weight clipping on one matrix (OmniQuant, Shao et al., section 3.2): learns how far the range of every tile
/// is clipped by the error of the layer's output, then leaves the codes to `inner` with the scales given. The smallest
/// and the largest weight of a tile make the range that is clipped; the quantizer's range is not asked.
template <Solver Inner = rtn> struct clipped {
    static_assert(!detent::wraps<wrapping::map, Inner>,
                  "clips are those of the mapped matrix: write transformed<T, clipped<Inner>>");
    static_assert(!detent::wraps<wrapping::scales, Inner>,
                  "clipped and searched both choose the scales: one of them is enough");
    static constexpr wrapping wraps = wrapping::scales;

    using evidence = evidence_around<Inner>;

    Inner inner = {};
    clip_learning learning = {};

    /// Codes and scales for `w` (out, in). @throws error as `inner`, and when scales are given.
    solution solve(matrix_view w, evidence const& known, problem const& p, executor_ref executor = {}) const {
        hessian const& h = known;
        expect_features(h.features(), w);
        if constexpr (CorrectingSolver<Inner>) {
            return clipped<decltype(inner.rounding)>{inner.rounding, learning}.solve(
                inner.correct(w, known, executor), known.factor(inner.rounding.factoring(), executor), p, executor);
        } else if constexpr (SecondOrderSolver<Inner>) {
            return solve(w, factor(h, inner.factoring(), executor), p, executor);
        } else {
            solution const learned = learn_clips(w, h.scale() * h.sum(), p, learning, executor);
            return solve_with(inner, w, known, with_scales(p, learned), executor);
        }
    }

    /// How `inner` factors the Hessian.
    factor_options factoring() const
        requires SecondOrderSolver<Inner>
    {
        return inner.factoring();
    }

    /// The same as above from the Hessian factored so, which layers that read the same inputs can share.
    solution solve(matrix_view w, hessian_factor const& f, problem const& p, executor_ref executor = {}) const
        requires SecondOrderSolver<Inner>
    {
        if (f.r.size() == 0) { // it will say why
            return inner.solve(w, f, p, executor);
        }
        solution const learned = learn_clips(w, damped_hessian(f, executor), p, learning, executor);
        return inner.solve(w, f, with_scales(p, learned), executor);
    }

    friend constexpr bool operator==(clipped const&, clipped const&) = default;
};

} // namespace detent::inline DETENT_ABI

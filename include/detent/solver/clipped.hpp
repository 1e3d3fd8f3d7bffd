// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <concepts>
#include <utility>

#include "detent/solver/better_rows.hpp"
#include "detent/solver/clip_learning.hpp"
#include "detent/solver/rtn.hpp"
#include "detent/solver/solver.hpp"

namespace detent::inline DETENT_ABI {

/// Learnable weight clipping on one matrix (OmniQuant, Shao et al., section 3.2): learns how far the range of every
/// tile is clipped by the error of the layer's output, then leaves the codes to `inner` with the scales given. The
/// smallest and the largest weight of a tile make the range that is clipped. Clips are learned for rounding to nearest;
/// another solver can make up for errors in its own way, so it solves the problem without clips too, and each row of
/// tiles gets the better answer.
///
/// Clips that are chosen in another way are a solver like this one: set the scales of `p.begin(w)`, then
/// `solve_with(inner, w, known, with_scales(p, s), executor)`.
template <Solver Inner = rtn> struct clipped {
    static_assert(!detent::wraps<wrapping::map, Inner>,
                  "clips are those of the mapped matrix: write transformed<T, clipped<Inner>>");
    static_assert(!detent::wraps<wrapping::clip, Inner> && !detent::wraps<wrapping::search, Inner>,
                  "clipped and searched both choose the scales: one of them is enough");
    static constexpr wrapping wraps = wrapping::clip;

    using evidence = evidence_around<Inner>;

    Inner inner = {};
    clip_learning learning = {};

    /// Codes and scales for `w` (out, in). @throws error as `inner` and `learn_clips`, and when no token was seen.
    solution solve(matrix_view w, evidence const& known, problem const& p, executor_ref executor = {}) const {
        hessian const& h = known;
        expect_features(h.features(), w);
        if constexpr (CorrectingSolver<Inner>) {
            return after_correction().solve(correct(w, known, executor),
                                            known.factor(factoring_of(inner.after_correction()), executor), p,
                                            executor);
        } else if constexpr (SecondOrderSolver<Inner>) {
            return solve(w, factor(h, inner.factoring(), executor), p, executor);
        } else {
            h.expect_seen();
            return solve_both(w, known, symmetric_floats(h.sum()), p, executor);
        }
    }

    /// How `inner` factors the Hessian.
    factor_options factoring() const requires SecondOrderSolver<Inner> { return inner.factoring(); }

    /// Codes and scales for `w` from the Hessian factored as `factoring` says, which layers that read the same inputs
    /// can share.
    solution solve(matrix_view w, hessian_factor const& f, problem const& p,
                   executor_ref executor = {}) const requires SecondOrderSolver<Inner> {
        if (f.r.size() == 0) { // it will say why
            return inner.solve(w, f, p, executor);
        }
        return solve_both(w, f, symmetric_floats(damped_hessian(f, executor)), p, executor);
    }

    /// The weights that `inner` corrects, and what rounds them then.
    matrix correct(matrix_view w, layer_inputs const& known,
                   executor_ref executor = {}) const requires CorrectingSolver<Inner> {
        return inner.correct(w, known, executor);
    }
    auto after_correction() const requires CorrectingSolver<Inner> {
        auto rounding = inner.after_correction();
        return clipped<decltype(rounding)>{std::move(rounding), learning};
    }

    friend bool operator==(clipped const&, clipped const&) = default;

private:
    /// With clips and without, judged by `h` (in, in), both triangles.
    template <class Evidence>
    solution solve_both(matrix_view w, Evidence const& known, matrix const& h, problem const& p,
                        executor_ref executor) const {
        solution const learned = learn_clips(w, h, p, learning, executor);
        solution with = solve_with(inner, w, known, with_scales(p, learned), executor);
        if constexpr (std::same_as<Inner, rtn>) { // learning has compared with the whole range
            return with;
        } else {
            solution without = solve_with(inner, w, known, p, executor);
            auto const losses = row_losses(w, with, h, executor);
            auto const losses_without = row_losses(w, without, h, executor);
            return better_rows(std::move(with), losses, std::move(without), losses_without);
        }
    }
};

} // namespace detent::inline DETENT_ABI

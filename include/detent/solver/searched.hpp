// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <concepts>
#include <span>
#include <utility>

#include "detent/solver/joint_search.hpp"
#include "detent/solver/rtn.hpp"
#include "detent/solver/solver.hpp"

namespace detent::inline DETENT_ABI {

/// The search of LLM-FP4 (Liu et al., section 4.1): chooses the range of every tile, and the format where the grid is
/// `one_of` several, by the error of the layer's output, then leaves the codes to `inner` with the scales given. Where
/// the quantizer rounds inputs with one static range, format and range of weights and inputs are chosen in turns.
template <Solver Inner = rtn> struct searched {
    static_assert(!detent::wraps<wrapping::map, Inner>,
                  "ranges are those of the mapped matrix: write transformed<T, searched<Inner>>");
    static_assert(!detent::wraps<wrapping::clip, Inner> && !detent::wraps<wrapping::search, Inner>,
                  "clipped and searched both choose the scales: one of them is enough");
    static constexpr wrapping wraps = wrapping::search;

    using evidence = layer_inputs;

    Inner inner = {};
    range_candidates candidates = {};              ///< the published exponent biases among them
    output_metric metric = output_metric::squares; ///< another one needs the inputs, kept
    index_t finalists = output_search{}.finalists; ///< see `output_search`; for squares
    bool shifted = false; ///< shift the features of static inputs by powers of two (pre-shifted exponent bias)
    int rounds = joint_search{}.rounds; ///< how often static inputs are chosen anew at most

    /// Codes, scales and format for `w` (out, in). @throws error as `inner` and `output_search`, when no token was
    /// seen, and when inputs that are needed have not been kept.
    solution solve(matrix_view w, layer_inputs const& known, problem const& p, executor_ref executor = {}) const {
        auto const all = p.formats();
        std::span<problem const* const> const formats(all.data(), all.size());
        expect_features(known.features(), w);
        known.hessian().expect_seen();
        expect_option(finalists >= 0, "range search", "number of finalists", finalists, "0 or more");
        return finish(
            w, known, formats,
            metric == output_metric::squares
                ? choose_format(w, known, formats, {candidates, finalists}, executor)
                : choose_format(w, known.kept(), known.kept(), formats, metric_search{metric, candidates}, executor),
            executor);
    }

    /// Codes, scales and format for `w`, chosen in turns with one range for the inputs, which must have been kept, on
    /// one of `grids`.
    solution solve(matrix_view w, layer_inputs const& known, problem const& p, std::span<any_grid const> grids,
                   executor_ref executor = {}) const {
        auto const all = p.formats();
        std::span<problem const* const> const formats(all.data(), all.size());
        expect_option(rounds >= 0, "range search", "number of rounds", rounds, "0 or more");
        joint_search const search{candidates, metric, shifted, rounds};
        auto found = search(w, known.kept(), formats, grids, executor);
        solution s = finish(w, found.seen, formats, std::move(found.weights), executor);
        s.input = std::move(found.input);
        return s;
    }

    /// Whether it judges by more than the Hessian of the inputs.
    bool passes_inputs() const { return metric != output_metric::squares; }

    friend bool operator==(searched const&, searched const&) = default;

private:
    solution finish(matrix_view w, layer_inputs const& known, std::span<problem const* const> formats,
                    format_choice chosen, executor_ref executor) const {
        if constexpr (std::same_as<Inner, rtn>) {
            return std::move(chosen.weights);
        } else {
            return solve_with(inner, w, known, with_scales(*formats[chosen.format], chosen.weights), executor);
        }
    }
};

} // namespace detent::inline DETENT_ABI

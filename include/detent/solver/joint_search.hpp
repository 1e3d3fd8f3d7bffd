// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <utility>
#include <vector>

#include "detent/core/eigen.hpp"
#include "detent/core/error.hpp"
#include "detent/core/executor.hpp"
#include "detent/core/finite.hpp"
#include "detent/evidence/layer_inputs.hpp"
#include "detent/evidence/rounded_inputs.hpp"
#include "detent/matrix/activation_quantizer.hpp"
#include "detent/scale/any_grid.hpp"
#include "detent/solver/activation_search.hpp"
#include "detent/solver/output_search.hpp"
#include "detent/solver/problem.hpp"

namespace detent::inline DETENT_ABI {

/// What a search of formats chose.
struct format_choice {
    std::size_t format = 0; ///< which of the problems
    solution weights;
};

/// Rounds `w` (out, in) in each of the ways of `formats`, ranges searched by `search`, and answers the one with the
/// smallest error of the layer's output. @throws error when there is no format, the error of none is finite, or as
/// `output_search`.
template <class Scalar = float>
format_choice choose_format(matrix_view w, layer_inputs const& known, std::span<problem const* const> formats,
                            output_search const& search, executor_ref executor = {}) {
    if (formats.empty()) {
        raise(error("format search", "has no format to choose from"));
    }
    expect_features(known.features(), w);
    basic_output_cost<Scalar> const at_output(known, formats.front()->begin(w));
    dependent<std::vector<double>, Scalar> estimates(formats.size());
    if (formats.size() > 1 && search.finalists > 0) { // those that are clearly worse need not be searched
        for (std::size_t f = 0; f < formats.size(); ++f) {
            estimates[f] = search.estimate(w, at_output, *formats[f], executor);
        }
    }
    double const constant = known.has_difference() ? known.difference_error(w, executor) : 0;
    double const least = std::ranges::min(estimates);
    double const worst = std::max(least, 1.03 * (least + constant) - constant); // their sum may be rounded below 0
    format_choice best;
    bool found = false;
    for (std::size_t f = 0; f < formats.size(); ++f) {
        if (estimates[f] <= worst) {
            solution s = search.solve(w, at_output, *formats[f], executor);
            if (is_finite(s.report.loss) && (!found || s.report.loss < best.weights.report.loss)) {
                best = {f, std::move(s)};
                found = true;
            }
        }
    }
    if (!found) {
        raise(no_finite_error("format search", "format"));
    }
    best.weights.report.loss += constant;
    return best;
}

/// Chooses among `formats` as the other, by another metric: some hundreds of the inputs `x` (token, in), which are
/// rounded to `rounded` before they meet the weights, pass through the layer. @throws error as `metric_search`, when
/// there is no format or no input, the error of none is finite, and when an input is not finite.
template <class Scalar = float>
format_choice choose_format(matrix_view w, matrix_view x, matrix_view rounded, std::span<problem const* const> formats,
                            metric_search const& search, executor_ref executor = {}) {
    if (formats.empty() || x.rows() == 0) {
        raise(error("format search",
                    formats.empty() ? "has no format to choose from" : "by this metric needs the inputs, kept"));
    }
    if (!all_finite(x) || !all_finite(rounded)) { // a cosine would not show it
        raise(error("inputs", "are not finite"));
    }
    index_t const step = std::max<index_t>(1, x.rows() / 512);
    matrix const some = every_nth_row(x, step);               // (token, in)
    matrix const some_rounded = every_nth_row(rounded, step); // (token, in)
    format_choice best;
    bool found = false;
    for (std::size_t f = 0; f < formats.size(); ++f) {
        solution s = search.solve<Scalar>(w, some, some_rounded, *formats[f], executor);
        if (is_finite(s.report.loss) && (!found || s.report.loss < best.weights.report.loss)) {
            best = {f, std::move(s)};
            found = true;
        }
    }
    if (!found) {
        raise(no_finite_error("format search", "format"));
    }
    return best;
}

/// Chooses format and range of a layer's weights and of its input together, in turns (LLM-FP4, section 4.1 and
/// Algorithm 1), for the smallest error of the layer's output on float inputs.
struct joint_search {
    range_candidates candidates = {};
    output_metric metric = output_metric::squares; ///< another one is judged by 512 of the inputs
    bool shifted = false; ///< shift the features of the input by powers of two (LLM-FP4's pre-shifted exponent bias)
    int rounds = 3;       ///< how often the input is chosen anew at most; it ends when it stays the same

    /// What was chosen.
    struct answer {
        format_choice weights;
        activation_quantizer input;
        layer_inputs seen; ///< what the input becomes, beside what it was
    };

    /// For the weights `w` (out, in), to be rounded in one of the ways of `formats`, and the inputs `x` (token, in), to
    /// be rounded to one of `grids`, with the first of which it begins. @throws error when there is no format or no
    /// grid, or as `output_search` and `activation_search`.
    template <class Scalar = float>
    answer operator()(matrix_view w, matrix_view x, std::span<problem const* const> formats,
                      std::span<any_grid const> grids, executor_ref executor = {}) const;

    friend constexpr bool operator==(joint_search const&, joint_search const&) = default;
};

template <class Scalar>
joint_search::answer joint_search::operator()(matrix_view w, matrix_view x, std::span<problem const* const> formats,
                                              std::span<any_grid const> grids, executor_ref executor) const {
    if (formats.empty() || grids.empty()) {
        raise(error("format search", "has nothing to choose from"));
    }
    activation_search const input_search{.candidates = candidates, .metric = metric, .shifted = shifted};
    activation_quantizer input = input_search.whole_range<Scalar>(x, grids.front());
    for (int round = 0;; ++round) {
        layer_inputs seen = rounded_inputs(x, input, executor);
        format_choice weights = metric == output_metric::squares
                                    ? choose_format<Scalar>(w, seen, formats, {candidates}, executor)
                                    : choose_format<Scalar>(w, x, input.round(x, executor), formats,
                                                            metric_search{metric, candidates}, executor);
        if (round >= rounds) { // the weights have the last word
            return {std::move(weights), std::move(input), std::move(seen)};
        }
        auto next = input_search.operator()<Scalar>(x, w, decode(weights.weights), grids, executor);
        if (next.quantizer == input) {
            return {std::move(weights), std::move(input), std::move(seen)};
        }
        input = std::move(next.quantizer);
    }
}

#if defined(DETENT_COMPILED)
extern template format_choice choose_format<float>(matrix_view, layer_inputs const&, std::span<problem const* const>,
                                                   output_search const&, executor_ref);
extern template format_choice choose_format<float>(matrix_view, matrix_view, matrix_view,
                                                   std::span<problem const* const>, metric_search const&, executor_ref);
extern template joint_search::answer joint_search::operator()<float>(matrix_view, matrix_view,
                                                                     std::span<problem const* const>,
                                                                     std::span<any_grid const>, executor_ref) const;
#endif

} // namespace detent::inline DETENT_ABI

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cstddef>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "detent/core/eigen.hpp"
#include "detent/core/error.hpp"
#include "detent/core/executor.hpp"
#include "detent/matrix/activation_quantizer.hpp"
#include "detent/scale/any_grid.hpp"
#include "detent/solver/activation_search.hpp"
#include "detent/solver/layer_inputs.hpp"
#include "detent/solver/output_search.hpp"
#include "detent/solver/problem.hpp"

namespace detent::inline DETENT_ABI {

/// The numbers (out, in) that a solution's codes stand for, inputs in their natural order.
inline matrix decode(solution const& s, problem const& p) {
    matrix numbers(s.shape.rows, s.shape.cols);
    vector scales(s.shape.cols);
    vector zeros(s.shape.cols);
    vector row(s.shape.cols); // in stored order
    for (index_t i = 0; i < s.shape.rows; ++i) {
        s.scales_of_row(i, scales.data(), zeros.data());
        p.decode(s.shape.cols, &s.codes[static_cast<std::size_t>(i * s.shape.cols)], scales.data(), zeros.data(),
                 row.data());
        for (index_t j = 0; j < s.shape.cols; ++j) {
            numbers(i, s.order.empty() ? j : s.order[static_cast<std::size_t>(j)]) = row(j);
        }
    }
    return numbers;
}

/// What a layer knows of its inputs `x` (token, in) when they are rounded by `input`, and were not.
inline layer_inputs rounded_inputs(matrix_view x, activation_quantizer const& input, executor_ref executor = {}) {
    layer_inputs seen(x.cols());
    seen.add(input.round(x, executor), x, executor);
    return seen;
}

/// What a search of formats chose.
struct format_choice {
    std::size_t format = 0; ///< which of the problems
    solution weights;
};

/// Rounds `w` (out, in) in each of the ways of `formats`, ranges searched by `search`, and answers the one with the
/// smallest error of the layer's output. @throws error when there is no format, or as `output_search`.
inline format_choice choose_format(matrix_view w, layer_inputs const& known, std::span<problem const* const> formats,
                                   output_search const& search, executor_ref executor = {}) {
    if (formats.empty()) {
        throw error("format search", "has no format to choose from");
    }
    expect_features(known.features(), w);
    output_error const error(known, formats.front()->tile(shape_of(w)).cols);
    std::vector<double> estimates(formats.size());
    if (formats.size() > 1 && search.finalists > 0) { // those that are clearly worse need not be searched
        std::ranges::transform(formats, estimates.begin(),
                               [&](problem const* p) { return search.estimate(w, error, *p, executor); });
    }
    double const constant = known.has_difference() ? known.difference_error(w, executor) : 0;
    double const least = std::ranges::min(estimates);
    double const worst = std::max(least, 1.03 * (least + constant) - constant); // their sum may be rounded below 0
    std::optional<format_choice> best;
    for (std::size_t f = 0; f < formats.size(); ++f) {
        if (estimates[f] <= worst) {
            solution s = search.solve(w, error, *formats[f], executor);
            if (!best || s.report.loss < best->weights.report.loss) {
                best = {f, std::move(s)};
            }
        }
    }
    best->weights.report.loss += constant;
    return std::move(*best);
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
    answer operator()(matrix_view w, matrix_view x, std::span<problem const* const> formats,
                      std::span<any_grid const> grids, executor_ref executor = {}) const {
        if (formats.empty() || grids.empty()) {
            throw error("format search", "has nothing to choose from");
        }
        activation_search const input_search{.candidates = candidates, .metric = metric, .shifted = shifted};
        activation_quantizer input = input_search.whole_range(x, grids.front());
        for (int round = 0;; ++round) {
            layer_inputs seen = rounded_inputs(x, input, executor);
            format_choice weights = metric == output_metric::squares
                                        ? choose_format(w, seen, formats, {candidates}, executor)
                                        : by_metric(w, x, input, formats, executor);
            std::optional<activation_search::answer> next;
            if (round < rounds) { // the weights have the last word
                next = input_search(x, w, decode(weights.weights, *formats[weights.format]), grids, executor);
            }
            if (!next || next->quantizer == input) {
                return {std::move(weights), std::move(input), std::move(seen)};
            }
            input = std::move(next->quantizer);
        }
    }

    friend constexpr bool operator==(joint_search const&, joint_search const&) = default;

private:
    format_choice by_metric(matrix_view w, matrix_view x, activation_quantizer const& input,
                            std::span<problem const* const> formats, executor_ref executor) const {
        matrix const some = every(x, std::max<index_t>(1, x.rows() / 512)); // (token, in)
        matrix const rounded = input.round(some, executor);
        format_choice best;
        for (std::size_t f = 0; f < formats.size(); ++f) {
            solution s = metric_search{metric, candidates}.solve(w, some, rounded, *formats[f], executor);
            if (f == 0 || s.report.loss < best.weights.report.loss) {
                best = {f, std::move(s)};
            }
        }
        return best;
    }
};

} // namespace detent::inline DETENT_ABI

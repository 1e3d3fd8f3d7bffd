// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <numeric>
#include <span>
#include <vector>

#include "detent/core/eigen.hpp"
#include "detent/core/error.hpp"
#include "detent/core/executor.hpp"
#include "detent/matrix/activation_quantizer.hpp"
#include "detent/nn/products.hpp"
#include "detent/scale/any_grid.hpp"
#include "detent/solver/metric_search.hpp"
#include "detent/solver/output_search.hpp"

namespace detent::inline DETENT_ABI {

/// The shifts of features whose largest absolute values are `largest`, for a static `scale` on a floating-point grid:
/// each feature's own scale is the nearest power of two below the common one, as far as the exponent bits reach
/// (LLM-FP4, section 4.2). Features that are always 0 are shifted the most. All are 0 on other grids.
inline std::vector<std::int8_t> channel_shifts(any_grid const& grid, float_vector const& largest, float scale) {
    std::vector<std::int8_t> shifts(static_cast<std::size_t>(largest.size()));
    if (auto const split = grid.split()) {
        double const most = std::min(15.0, std::ldexp(1.0, split->exponent_bits) - 1);
        double const top = static_cast<double>(grid.numbers().high) * scale;
        std::ranges::transform(largest, shifts.begin(), [&](float m) {
            double const bits = std::nearbyint(std::log2(top / static_cast<double>(m))); // infinite for a dead feature
            return static_cast<std::int8_t>(std::clamp(bits, 0.0, most));
        });
    }
    return shifts;
}

/// Every `step`-th row of `x`.
inline matrix every_nth_row(matrix_view x, index_t step) {
    matrix some(ceil_div(x.rows(), step), x.cols());
    for (index_t i = 0; i < some.rows(); ++i) {
        some.row(i) = x.row(i * step);
    }
    return some;
}

/// Searches the static range of a layer's input for the smallest error of its output, in the manner of `output_search`.
struct activation_search {
    range_candidates candidates = {};
    output_metric metric = output_metric::squares;
    bool shifted = false; ///< shift features by powers of two (LLM-FP4's pre-shifted exponent bias)
    /// How many candidates all inputs judge exactly: the best by a `rough_form` and so many of the inputs, evenly
    /// spaced, and always the whole range of each grid. 0 judges all exactly.
    index_t finalists = 6;
    index_t sample = 512;

    /// What to do with the inputs, and the sum over all of them of |W x - Q x^|^2 - |W x - Q x|^2 for rounded inputs
    /// x^, or of another metric.
    struct answer {
        activation_quantizer quantizer;
        double error = 0;
    };

    /// The smallest range that holds all of `x` (token, in). @throws error when there is no input or one is not finite.
    activation_quantizer whole_range(matrix_view x, any_grid const& grid) const {
        expect_finite(x);
        return at(grid, grid.lay(interval::of(grid, x)).scale, grid.lay(interval::of(grid, x)).zero, largest_of(x));
    }

    /// The best of `grids` and its best range for the inputs `x` (token, in) of a layer that has the weights `q` (out,
    /// in) in place of `w`. @throws error when there is no grid, as `range_candidates`, or when an input is not finite.
    answer operator()(matrix_view x, matrix_view w, matrix_view q, std::span<any_grid const> grids,
                      executor_ref executor = {}) const {
        if (grids.empty()) {
            throw error("range search", "has no grid for the inputs");
        }
        expect_finite(x);
        float_vector const largest = largest_of(x);
        std::vector<activation_quantizer> tried;
        std::vector<std::size_t> first; // the whole range of each grid
        for (any_grid const& grid : grids) {
            tile_scale const whole = grid.lay(interval::of(grid, x));
            first.push_back(tried.size());
            for (float const ratio : candidates.ratios(whole.scale, grid.split())) {
                tried.push_back(at(grid, store(float_format::f32, whole.scale * ratio), whole.zero, largest));
            }
        }
        bool const by_forms = metric == output_metric::squares;
        matrix const g = by_forms ? product(q, q, executor) : matrix{}; // Q^T Q
        // Half the gradient at x^ = x is x times this.
        matrix const half = by_forms ? product(q - w, q, executor) : matrix{}; // (in, in)
        std::vector<std::size_t> chosen(tried.size());
        std::iota(chosen.begin(), chosen.end(), 0);
        std::vector<double> value;
        if (finalists > 0) {
            matrix const some = every_nth_row(x, x.rows() / std::clamp<index_t>(sample, 1, x.rows()));
            value = by_forms ? errors(some, half, rough_form(g), tried, chosen, executor)
                             : distances(some, w, q, tried, chosen, executor);
            auto const last = chosen.begin() + std::min<index_t>(std::ssize(chosen), finalists);
            std::ranges::partial_sort(chosen, last, {}, [&](std::size_t i) { return value[i]; });
            chosen.erase(last, chosen.end());
            for (std::size_t const whole : first) { // so that the answer is never worse than a whole range
                if (std::ranges::find(chosen, whole) == chosen.end()) {
                    chosen.push_back(whole);
                }
            }
        }
        value = by_forms ? errors(x, half, quadratic_form(g), tried, chosen, executor)
                         : distances(x, w, q, tried, chosen, executor);
        auto const best = std::ranges::min_element(value) - value.begin();
        return {tried[chosen[static_cast<std::size_t>(best)]], value[static_cast<std::size_t>(best)]};
    }

private:
    static void expect_finite(matrix_view x) {
        if (!(x.size() > 0 && x.allFinite())) {
            throw error("inputs", x.size() > 0 ? "are not finite" : "are missing");
        }
    }

    static float_vector largest_of(matrix_view x) { return x.cwiseAbs().colwise().maxCoeff(); }

    activation_quantizer at(any_grid const& grid, float scale, float zero, float_vector const& largest) const {
        return {grid, {scale, zero}, shifted ? channel_shifts(grid, largest, scale) : std::vector<std::int8_t>{}};
    }

    /// a^T b, (in, in).
    static matrix product(matrix const& a, matrix_view b, executor_ref executor) {
        matrix sum = matrix::Zero(a.cols(), b.cols());
        executor.for_pieces(a.cols(), 128, [&](index_t begin, index_t end) {
            nn::products<float>::add(end - begin, b.cols(), a.rows(), 1,
                                     simd::strided<float>{a.data() + begin, a.cols()}.transpose(),
                                     {b.data(), b.outerStride()}, &sum(begin, 0), b.cols());
        });
        return sum;
    }

    /// The distance of each chosen quantizer by the metric.
    std::vector<double> distances(matrix_view x, matrix_view w, matrix_view q,
                                  std::vector<activation_quantizer> const& tried,
                                  std::vector<std::size_t> const& chosen, executor_ref executor) const {
        std::vector<double> values;
        for (std::size_t const c : chosen) {
            values.push_back(metric_search{metric, candidates}.distance(x, w, q, tried[c], executor));
        }
        return values;
    }

    /// The error of each chosen quantizer, in one order for any executor.
    template <class Form>
    static std::vector<double> errors(matrix_view x, matrix const& half, Form const& form,
                                      std::vector<activation_quantizer> const& tried,
                                      std::vector<std::size_t> const& chosen, executor_ref executor) {
        index_t const in = x.cols();
        index_t const rows = 32; // of a piece
        std::vector<std::vector<double>> parts(static_cast<std::size_t>(ceil_div(x.rows(), rows)));
        executor.for_pieces(x.rows(), rows, [&] { return form_batch(form); },
                            [&](form_batch<Form>& batch, index_t begin, index_t end) {
            matrix_view const inputs = x.middleRows(begin, end - begin);
            matrix linear = matrix::Zero(end - begin, in);
            nn::products<float>::add(end - begin, in, in, 1, {inputs.data(), inputs.outerStride()}, {half.data(), in},
                                     linear.data(), in);
            auto& sums = parts[static_cast<std::size_t>(begin / rows)];
            sums.resize(chosen.size());
            for (std::size_t c = 0; c < chosen.size(); ++c) {
                matrix const rounded = tried[chosen[c]].round(inputs);
                for (index_t i = 0; i < inputs.rows(); ++i) {
                    Eigen::Map<float_vector>(batch.next(linear.row(i).data(), sums[c]), in) =
                        (rounded.row(i) - inputs.row(i)).transpose();
                }
            }
            batch.finish();
        });
        std::vector<double> total(chosen.size());
        for (auto const& part : parts) {
            std::ranges::transform(total, part, total.begin(), std::plus{});
        }
        return total;
    }
};

} // namespace detent::inline DETENT_ABI

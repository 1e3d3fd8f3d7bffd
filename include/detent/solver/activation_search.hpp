// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <vector>

#include "detent/core/eigen.hpp"
#include "detent/core/error.hpp"
#include "detent/core/executor.hpp"
#include "detent/core/finite.hpp"
#include "detent/matrix/activation_quantizer.hpp"
#include "detent/nn/products.hpp"
#include "detent/scale/any_grid.hpp"
#include "detent/simd/dot.hpp"
#include "detent/solver/metric_search.hpp"
#include "detent/solver/output_cost.hpp"
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
        for (std::size_t j = 0; j < shifts.size(); ++j) {
            auto const m = static_cast<double>(largest(static_cast<index_t>(j)));
            double const bits = std::nearbyint(std::log2(top / m)); // infinite for a dead feature
            shifts[j] = static_cast<std::int8_t>(std::clamp(bits, 0.0, most));
        }
    }
    return shifts;
}

/// Every `step`-th row of `x`.
inline matrix every_nth_row(matrix_view x, index_t step) {
    matrix some(ceil_div(x.rows(), step), x.cols());
    for (index_t i = 0; i < some.rows(); ++i) {
        std::copy_n(x.data() + i * step * x.outerStride(), x.cols(), some.data() + i * x.cols());
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
    template <class Scalar = float> activation_quantizer whole_range(matrix_view x, any_grid const& grid) const {
        expect_finite(x);
        tile_scale const whole = grid.lay(interval::of(grid, x));
        return at(grid, whole.scale, whole.zero, largest_of_columns(x));
    }

    /// The best of `grids` and its best range for the inputs `x` (token, in) of a layer that has the weights `q` (out,
    /// in) in place of `w`. @throws error when there is no grid, as `range_candidates`, when an input is not finite, or
    /// no error of a range is.
    template <class Scalar = float>
    answer operator()(matrix_view x, matrix_view w, matrix_view q, std::span<any_grid const> grids,
                      executor_ref executor = {}) const;

private:
    static void expect_finite(matrix_view x) {
        if (!(x.size() > 0 && all_finite(x))) {
            raise(error("inputs", x.size() > 0 ? "are not finite" : "are missing"));
        }
    }

    activation_quantizer at(any_grid const& grid, float scale, float zero, float_vector const& largest) const {
        return {grid, {scale, zero}, shifted ? channel_shifts(grid, largest, scale) : std::vector<std::int8_t>{}};
    }

    template <class Scalar> using quantizers = dependent<std::vector<activation_quantizer>, Scalar>;
    template <class Scalar> using positions = dependent<std::vector<std::size_t>, Scalar>;
    template <class Scalar> using sums = dependent<std::vector<double>, Scalar>;

    /// a^T b, (in, in).
    template <class Scalar>
    static basic_matrix<Scalar> product(basic_matrix_view<Scalar> a, basic_matrix_view<Scalar> b,
                                        executor_ref executor) {
        basic_matrix<Scalar> sum;
        sum.setZero(a.cols(), b.cols());
        executor.for_pieces(a.cols(), 128, [&](index_t begin, index_t end) {
            nn::products<Scalar>::add(end - begin, b.cols(), a.rows(), 1,
                                      simd::strided<Scalar>{a.data() + begin, a.outerStride()}.transpose(),
                                      {b.data(), b.outerStride()}, &sum(begin, 0), b.cols());
        });
        return sum;
    }

    /// The distance of each chosen quantizer by the metric.
    template <class Scalar>
    sums<Scalar> distances(matrix_view x, matrix_view w, matrix_view q, quantizers<Scalar> const& tried,
                           positions<Scalar> const& chosen, executor_ref executor) const {
        metric_search const search{metric, candidates};
        sums<Scalar> values;
        for (std::size_t const c : chosen) {
            values.push_back(search.distance<Scalar>(x, w, q, tried[c], executor));
        }
        return values;
    }

    /// The error of each chosen quantizer, in one order for any executor.
    template <class Scalar, class Form>
    static sums<Scalar> errors(matrix_view x, basic_matrix<Scalar> const& half, Form const& form,
                               quantizers<Scalar> const& tried, positions<Scalar> const& chosen,
                               executor_ref executor) {
        index_t const in = x.cols();
        index_t const rows = 32; // of a piece
        std::size_t const count = chosen.size();
        sums<Scalar> parts(static_cast<std::size_t>(ceil_div(x.rows(), rows)) * count); // (piece, chosen)
        executor.for_pieces(
            x.rows(), rows, [&] { return form_batch<Form>(form); },
            [&](form_batch<Form>& batch, index_t begin, index_t end) {
                matrix_view const inputs = middle_rows(x, begin, end - begin);
                basic_matrix<Scalar> linear;
                linear.setZero(end - begin, in);
                nn::products<Scalar>::add(end - begin, in, in, 1, {inputs.data(), inputs.outerStride()},
                                          {half.data(), in}, linear.data(), in);
                double* const here = parts.data() + static_cast<std::size_t>(begin / rows) * count;
                for (std::size_t c = 0; c < count; ++c) {
                    matrix const rounded = tried[chosen[c]].round(inputs);
                    for (index_t i = 0; i < inputs.rows(); ++i) {
                        Scalar* const d = batch.next(linear.data() + i * in, here[c]);
                        std::copy_n(rounded.data() + i * in, in, d);
                        simd::add_multiple(Scalar{-1}, inputs.data() + i * inputs.outerStride(), d, in);
                    }
                }
                batch.finish();
            });
        sums<Scalar> total(count);
        for (std::size_t i = 0; i < parts.size(); ++i) {
            total[i % count] += parts[i];
        }
        return total;
    }
};

template <class Scalar>
activation_search::answer activation_search::operator()(matrix_view x, matrix_view w, matrix_view q,
                                                        std::span<any_grid const> grids, executor_ref executor) const {
    if (grids.empty()) {
        raise(error("range search", "has no grid for the inputs"));
    }
    expect_finite(x);
    float_vector const largest = largest_of_columns(x);
    quantizers<Scalar> tried;
    positions<Scalar> first; // the whole range of each grid
    for (any_grid const& grid : grids) {
        tile_scale const whole = grid.lay(interval::of(grid, x));
        first.push_back(tried.size());
        for (float const ratio : candidates.ratios(whole.scale, grid.split())) {
            tried.push_back(at(grid, store(float_format::f32, whole.scale * ratio), whole.zero, largest));
        }
    }
    bool const by_forms = metric == output_metric::squares;
    basic_matrix<Scalar> g;    // Q^T Q
    basic_matrix<Scalar> half; // (in, in); half the gradient at x^ = x is x times this
    if (by_forms) {
        g = product<Scalar>(q, q, executor);
        half = product<Scalar>(basic_matrix<Scalar>(q) - w, q, executor);
    }
    positions<Scalar> chosen(tried.size());
    std::iota(chosen.begin(), chosen.end(), 0);
    sums<Scalar> value;
    if (finalists > 0) {
        matrix const some = every_nth_row(x, x.rows() / std::clamp<index_t>(sample, 1, x.rows()));
        value = by_forms ? errors<Scalar>(some, half, basic_rough_form<Scalar>(g), tried, chosen, executor)
                         : distances<Scalar>(some, w, q, tried, chosen, executor);
        std::ranges::transform(value, value.begin(), comparable_cost);
        auto const last = chosen.begin() + std::min<index_t>(std::ssize(chosen), finalists);
        std::ranges::partial_sort(chosen, last, {}, [&](std::size_t i) { return value[i]; });
        chosen.erase(last, chosen.end());
        for (std::size_t const whole : first) { // so that the answer is never worse than a whole range
            if (std::ranges::find(chosen, whole) == chosen.end()) {
                chosen.push_back(whole);
            }
        }
    }
    value = by_forms ? errors<Scalar>(x, half, basic_quadratic_form<Scalar>(g), tried, chosen, executor)
                     : distances<Scalar>(x, w, q, tried, chosen, executor);
    std::ranges::transform(value, value.begin(), comparable_cost);
    auto const best = std::ranges::min_element(value) - value.begin();
    if (!is_finite(value[static_cast<std::size_t>(best)])) {
        raise(no_finite_error("range search", "range of the inputs"));
    }
    return {tried[chosen[static_cast<std::size_t>(best)]], value[static_cast<std::size_t>(best)]};
}

#if defined(DETENT_COMPILED)
extern template activation_search::answer activation_search::operator()<float>(matrix_view, matrix_view, matrix_view,
                                                                               std::span<any_grid const>,
                                                                               executor_ref) const;
#endif

} // namespace detent::inline DETENT_ABI

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "detent/core/contract.hpp"
#include "detent/core/eigen.hpp"
#include "detent/core/error.hpp"
#include "detent/core/executor.hpp"
#include "detent/core/stopwatch.hpp"
#include "detent/matrix/quantized_activations.hpp"
#include "detent/scale/any_grid.hpp"
#include "detent/scale/any_range.hpp"

namespace detent::inline DETENT_ABI {

/// The scale of activations that share it and begin at `place`: from `range`, or where that is empty, over the smallest
/// and the largest of them.
inline tile_scale fit_scale(any_grid const& grid, any_range const& range, matrix_view tile, scale_format format,
                            tile_place place) {
    return range.empty() ? grid.lay(interval::of(grid, tile), format) : range.fit(tile, format, place);
}

/// How activations (token, feature) get their scales. Those are static, the same for every token, where `fixed` holds
/// any, and else dynamic: fitted to the numbers of each token, so that what a token becomes does not depend on the
/// others.
struct activation_rounding {
    index_t width = 0; ///< consecutive features that share a scale, 0 for all of a token; the last may be fewer
    /// How dynamic scales are stored, as E8M0 for MXFP4 and MXFP8 and as E4M3 for NVFP4.
    scale_kind kind = scale_kind::f32;
    /// The unit of dynamic E4M3 scales, within `unit_limits`, the same for all tokens. Without one, each token has its
    /// own: that with which its largest number has the largest scale.
    std::optional<float> unit = {};
    std::vector<tile_scale> fixed = {};   ///< one for each group of features; empty for dynamic
    std::vector<std::int8_t> shifts = {}; ///< of each feature, 0 to 15, beside static scales; empty for none
    any_range range = {};                 ///< fits dynamic scales; empty for the smallest and the largest number

    friend bool operator==(activation_rounding const&, activation_rounding const&) = default;
};

/// Rounds activations (token, feature) to a grid, as a layer does with its input, with static or dynamic scales for
/// groups of features. Features may have shifts: number j is multiplied by 2^shift before it is rounded, and what it is
/// rounded to by 2^-shift, so that each feature has a power of two of its own below the common scale (LLM-FP4's
/// pre-shifted exponent bias). A value; const uses may happen at once in several threads.
class activation_quantizer {
public:
    /// Dynamic, unless `how` says otherwise. @throws error when a scale or unit is not positive and finite, a zero
    /// point not finite or the grid without, a shift is not 0 to 15, or two members of `how` do not go together.
    explicit activation_quantizer(any_grid grid, activation_rounding how = {})
        : grid_(std::move(grid)), how_(std::move(how)) {
        check();
        factors_.resize(std::ssize(how_.shifts));
        std::ranges::transform(how_.shifts, factors_.begin(), [](int k) { return std::ldexp(1.0F, k); });
    }

    /// Static, with one scale for all numbers. @throws error as the other.
    activation_quantizer(any_grid grid, tile_scale fixed, std::vector<std::int8_t> shifts = {})
        : activation_quantizer(std::move(grid), activation_rounding{.fixed = {fixed}, .shifts = std::move(shifts)}) {}

    any_grid const& grid() const { return grid_; }
    activation_rounding const& how() const { return how_; }
    /// The static scales of each group of features; empty where they are dynamic.
    std::vector<tile_scale> const& fixed() const { return how_.fixed; }
    /// Of each feature; empty for none.
    std::vector<std::int8_t> const& shifts() const { return how_.shifts; }
    /// Scales of a token of so many features.
    index_t groups(index_t features) const { return how_.width == 0 ? 1 : ceil_div(features, how_.width); }

    /// The codes of `x` (token, feature). @throws error when a number is not finite.
    quantized_activations quantize(matrix_view x, executor_ref executor = {}) const {
        index_t const groups = this->groups(x.cols());
        quantized_activations q{.shape = shape_of(x),
                                .bits = grid_.bits(),
                                .table = grid_.table(),
                                .width = how_.width,
                                .scales = how_.fixed,
                                .shifts = how_.shifts,
                                .codes = std::vector<code>(static_cast<std::size_t>(x.size()))};
        if (how_.fixed.empty()) {
            q.scales.resize(static_cast<std::size_t>(x.rows() * groups));
        }
        for_tokens(x, executor, [&](index_t t, float_vector const& scaled, tile_scale const* scales, float* numbers) {
            if (how_.fixed.empty()) {
                std::copy_n(scales, groups, q.scales.data() + t * groups);
            }
            round_groups(scaled, scales, q.codes.data() + t * x.cols(), numbers);
        });
        return q;
    }

    /// The numbers that those codes stand for. @throws error when a number of `x` is not finite.
    matrix round(matrix_view x, executor_ref executor = {}) const {
        matrix rounded(x.rows(), x.cols()); // (token, feature)
        for_tokens(x, executor, [&](index_t t, float_vector const& scaled, tile_scale const* scales, float* numbers) {
            thread_local std::vector<code> codes; // not needed
            codes.resize(static_cast<std::size_t>(x.cols()));
            round_groups(scaled, scales, codes.data(), numbers);
            rounded.row(t) = Eigen::Map<float_vector const>(numbers, x.cols()).transpose();
            if (factors_.size() > 0) {
                rounded.row(t).array() /= factors_.transpose().array();
            }
        });
        return rounded;
    }

    /// Whether both round alike.
    friend bool operator==(activation_quantizer const& a, activation_quantizer const& b) {
        return a.grid_ == b.grid_ && a.how_ == b.how_;
    }

private:
    void check() const {
        for (tile_scale const s : how_.fixed) {
            if (!(s.scale > 0) || !std::isfinite(s.scale) || !std::isfinite(s.zero)) {
                throw error("activations", "cannot be quantized with a scale of " + std::to_string(s.scale));
            }
            if (s.zero != 0 && !grid_.has_zero()) {
                throw error("activations", "cannot have a zero point on a grid without one");
            }
        }
        for (auto const k : how_.shifts) {
            if (k < 0 || k > 15) {
                throw error("activations", "cannot be shifted by " + std::to_string(k) + " bits");
            }
        }
        if (how_.width < 0) {
            throw error("activations", "cannot share a scale in groups of " + std::to_string(how_.width));
        }
        if (how_.unit && how_.kind != scale_kind::ue4m3) {
            throw error("activations", "have scales that are not E4M3, which alone have a unit");
        }
        if (how_.unit && !(*how_.unit >= unit_limits::lowest && *how_.unit <= unit_limits::highest)) {
            throw error("activations", "cannot have scales with a unit of " + std::to_string(*how_.unit));
        }
        if (how_.fixed.empty() ? !how_.shifts.empty() : how_.kind != scale_kind::f32 || !how_.range.empty()) {
            throw error("activations", how_.fixed.empty() ? "have shifts, which go with static scales only"
                                                          : "have static scales and a way to fit others");
        }
        if (how_.fixed.size() > 1 && how_.width == 0) {
            throw error("activations", "have several static scales, but no groups of features");
        }
    }

    /// The codes of a token and the numbers they stand for, before they are shifted back.
    void round_groups(float_vector const& scaled, tile_scale const* scales, code* codes, float* numbers) const {
        index_t const width = how_.width == 0 ? scaled.size() : how_.width;
        for (index_t begin = 0; begin < scaled.size(); begin += width) {
            index_t const n = std::min(width, scaled.size() - begin);
            grid_.round(n, scaled.data() + begin, *scales++, codes + begin, numbers + begin);
        }
    }

    /// The dynamic scales of the groups of a token.
    void fit(float_vector const& numbers, tile_scale* scales) const {
        scale_format format(how_.kind, how_.unit.value_or(1.0F));
        if (!how_.unit) {
            format = with_unit(grid_, numbers.transpose(), format);
        }
        index_t const width = how_.width == 0 ? numbers.size() : how_.width;
        for (index_t begin = 0; begin < numbers.size(); begin += width) {
            auto const group = numbers.segment(begin, std::min(width, numbers.size() - begin)).transpose();
            *scales++ = fit_scale(grid_, how_.range, group, format, {0, begin});
        }
    }

    /// Calls `f(token, shifted numbers, scales of its groups, place for numbers)` for every token.
    template <class F> void for_tokens(matrix_view x, executor_ref executor, F const& f) const {
        stopwatch::section const timed(executor.watch(), work_kind::rounding);
        DETENT_EXPECTS(how_.shifts.empty() || x.cols() == std::ssize(how_.shifts));
        DETENT_EXPECTS(how_.fixed.empty() || groups(x.cols()) == std::ssize(how_.fixed));
        executor.for_pieces(x.rows(), 16, [&](index_t begin, index_t end) {
            float_vector scaled(x.cols());
            float_vector numbers(x.cols());
            std::vector<tile_scale> scales = how_.fixed;
            scales.resize(static_cast<std::size_t>(groups(x.cols())));
            for (index_t t = begin; t < end; ++t) {
                scaled = x.row(t).transpose();
                if ((0 * scaled).sum() != 0) { // which only numbers that are not finite make so
                    throw error("activations", "those of token " + std::to_string(t) + " are not finite");
                }
                if (factors_.size() > 0) {
                    scaled.array() *= factors_.array();
                }
                if (how_.fixed.empty()) {
                    fit(scaled, scales.data());
                }
                f(t, scaled, scales.data(), numbers.data());
            }
        });
    }

    any_grid grid_;
    activation_rounding how_;
    float_vector factors_; // 2^shifts
};

} // namespace detent::inline DETENT_ABI

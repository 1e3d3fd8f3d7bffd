// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "detent/core/eigen.hpp"
#include "detent/core/error.hpp"
#include "detent/core/executor.hpp"
#include "detent/core/finite.hpp"
#include "detent/core/stopwatch.hpp"
#include "detent/matrix/quantized_activations.hpp"
#include "detent/scale/any_grid.hpp"
#include "detent/scale/any_range.hpp"

namespace detent::inline DETENT_ABI {

/// The scale of activations that share it and begin at `place`: from `range`, or where that is empty, over the smallest
/// and the largest of them.
template <std::same_as<any_grid> G>
tile_scale fit_scale(G const& grid, any_range const& range, matrix_view tile, scale_format format, tile_place place) {
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
        : grid_(std::move(grid)), how_(std::move(how)), factors_(how_.shifts.size()) {
        check();
        for (std::size_t i = 0; i < factors_.size(); ++i) {
            factors_[i] = std::ldexp(1.0F, how_.shifts[i]);
        }
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

    // These are templates so that only programs that round something compile them, and each of them once.

    /// The codes of `x` (token, feature). @throws error when a number is not finite, or static scales or shifts are for
    /// another number of features.
    template <class Scalar = float> quantized_activations quantize(matrix_view x, executor_ref executor = {}) const;
    /// Codes in memory of a scratch, which lives as long as they do, as do the quantizer's table and static scales.
    /// Where `executor` has a workspace, and the way to fit scales needs no memory, a call like an earlier one
    /// allocates nothing. @throws error as the other.
    template <class Scalar = float>
    activation_view quantize(matrix_view x, scratch& memory, executor_ref executor = {}) const;
    /// The numbers that those codes stand for. @throws error as `quantize`.
    template <class Scalar = float> basic_matrix<Scalar> round(matrix_view x, executor_ref executor = {}) const;

    /// Whether both round alike.
    friend bool operator==(activation_quantizer const&, activation_quantizer const&) = default;

private:
    void check() const {
        for (tile_scale const s : how_.fixed) {
            if (!(s.scale > 0) || !is_finite(s.scale) || !is_finite(s.zero)) {
                raise(error("activations", "cannot be quantized with a scale of " + std::to_string(s.scale)));
            }
            if (s.zero != 0 && !grid_.has_zero()) {
                raise(error("activations", "cannot have a zero point on a grid without one"));
            }
        }
        for (auto const k : how_.shifts) {
            if (k < 0 || k > 15) {
                raise(error("activations", "cannot be shifted by " + std::to_string(k) + " bits"));
            }
        }
        if (how_.width < 0) {
            raise(error("activations", "cannot share a scale in groups of " + std::to_string(how_.width)));
        }
        if (how_.unit && how_.kind != scale_kind::ue4m3) {
            raise(error("activations", "have scales that are not E4M3, which alone have a unit"));
        }
        if (how_.unit && !(*how_.unit >= unit_limits::lowest && *how_.unit <= unit_limits::highest)) {
            raise(error("activations", "cannot have scales with a unit of " + std::to_string(*how_.unit)));
        }
        if (how_.fixed.empty() ? !how_.shifts.empty() : how_.kind != scale_kind::f32 || !how_.range.empty()) {
            raise(error("activations", how_.fixed.empty() ? "have shifts, which go with static scales only"
                                                          : "have static scales and a way to fit others"));
        }
        if (how_.fixed.size() > 1 && how_.width == 0) {
            raise(error("activations", "have several static scales, but no groups of features"));
        }
    }

    /// Calls `f(begin, count)` for each group of `features`.
    template <class F> void for_groups(index_t features, F const& f) const {
        index_t const width = how_.width == 0 ? features : how_.width;
        for (index_t begin = 0; begin < features; begin += width) {
            f(begin, std::min(width, features - begin));
        }
    }

    /// Writes the dynamic scales of the groups of a token.
    template <class Scalar> void fit(std::span<Scalar const> x, tile_scale* scales) const {
        index_t const features = std::ssize(x);
        auto const view = [&](index_t begin, index_t n) { return view_of(x.data() + begin, 1, n, features); };
        scale_format format(how_.kind, how_.unit.value_or(1.0F));
        if (!how_.unit) {
            format = with_unit(grid_, view(0, features), format);
        }
        for_groups(features, [&](index_t begin, index_t n) {
            *scales++ = fit_scale(grid_, how_.range, view(begin, n), format, {0, begin});
        });
    }

    /// Rounds every token, writes its codes (token, feature), and its scales (token, group) where they are dynamic, and
    /// calls `f(index, rounded)` for it, with what its codes stand for before it is shifted back.
    template <class Scalar, class F>
    void for_tokens(basic_matrix_view<Scalar> x, code* codes, tile_scale* scales, executor_ref executor,
                    F const& f) const {
        stopwatch::section const timed(executor.watch(), work_kind::rounding);
        index_t const features = x.cols();
        expect_valid(how_.shifts.empty() || features == std::ssize(how_.shifts), "activations",
                     "have not as many features as the quantizer has shifts");
        expect_valid(how_.fixed.empty() || groups(features) == std::ssize(how_.fixed), "activations",
                     "have not as many groups of features as the quantizer has static scales");
        constexpr index_t grain = 16;
        scratch memory(executor);
        index_t const pieces = ceil_div(x.rows(), grain); // each with memory for one token
        auto* const numbers = memory.take<Scalar>(2 * pieces * features);
        executor.for_pieces(x.rows(), grain, [&](index_t begin, index_t end) {
            Scalar* const shifted = numbers + 2 * (begin / grain) * features;
            Scalar* const rounded = shifted + features;
            for (index_t row = begin; row < end; ++row) {
                Scalar const* const of_token = x.data() + row * x.outerStride();
                if (!all_finite(of_token, features)) {
                    raise(error("activations", "those of token " + std::to_string(row) + " are not finite"));
                }
                for (index_t k = 0; k < features; ++k) {
                    shifted[k] = factors_.empty() ? of_token[k] : of_token[k] * factors_[static_cast<std::size_t>(k)];
                }
                tile_scale const* scale = how_.fixed.data();
                if (how_.fixed.empty()) {
                    tile_scale* const fitted = scales + row * groups(features);
                    fit<Scalar>({shifted, static_cast<std::size_t>(features)}, fitted);
                    scale = fitted;
                }
                for_groups(features, [&](index_t first, index_t count) {
                    grid_.round(count, shifted + first, *scale++, codes + row * features + first, rounded + first);
                });
                f(row, rounded);
            }
        });
    }

    any_grid grid_;
    activation_rounding how_;
    std::vector<float> factors_; // 2^shifts
};

template <class Scalar>
quantized_activations activation_quantizer::quantize(matrix_view x, executor_ref executor) const {
    quantized_activations q{.shape = shape_of(x),
                            .bits = grid_.bits(),
                            .table = grid_.table(),
                            .width = how_.width,
                            .scales = how_.fixed,
                            .shifts = how_.shifts,
                            .codes = std::vector<code>(static_cast<std::size_t>(x.size()))};
    if (how_.fixed.empty()) {
        q.scales.resize(static_cast<std::size_t>(x.rows() * groups(x.cols())));
    }
    for_tokens<Scalar>(x, q.codes.data(), q.scales.data(), executor, [](index_t, Scalar const*) {});
    return q;
}

template <class Scalar>
activation_view activation_quantizer::quantize(matrix_view x, scratch& memory, executor_ref executor) const {
    auto* const codes = memory.take<code>(x.size());
    index_t const fitted = how_.fixed.empty() ? x.rows() * groups(x.cols()) : 0;
    auto* const scales = memory.take<tile_scale>(fitted);
    for_tokens<Scalar>(x, codes, scales, executor, [](index_t, Scalar const*) {});
    std::span<tile_scale const> const all = how_.fixed.empty()
                                                ? std::span<tile_scale const>(scales, static_cast<std::size_t>(fitted))
                                                : std::span<tile_scale const>(how_.fixed);
    return {.shape = shape_of(x),
            .bits = grid_.bits(),
            .table = grid_.table(),
            .width = how_.width,
            .scales = all,
            .shifts = how_.shifts,
            .codes = {codes, static_cast<std::size_t>(x.size())}};
}

template <class Scalar> basic_matrix<Scalar> activation_quantizer::round(matrix_view x, executor_ref executor) const {
    basic_matrix<Scalar> result(x.rows(), x.cols()); // (token, feature)
    scratch memory(executor);
    auto* const codes = memory.take<code>(x.size());
    auto* const scales = memory.take<tile_scale>(how_.fixed.empty() ? x.rows() * groups(x.cols()) : 0);
    for_tokens<Scalar>(x, codes, scales, executor, [&](index_t row, Scalar const* rounded) {
        Scalar* const to = result.data() + row * result.cols();
        for (index_t k = 0; k < result.cols(); ++k) {
            to[k] = factors_.empty() ? rounded[k] : rounded[k] / factors_[static_cast<std::size_t>(k)];
        }
    });
    return result;
}

#if defined(DETENT_COMPILED)
extern template quantized_activations activation_quantizer::quantize<float>(matrix_view, executor_ref) const;
extern template activation_view activation_quantizer::quantize<float>(matrix_view, scratch&, executor_ref) const;
extern template matrix activation_quantizer::round<float>(matrix_view, executor_ref) const;
#endif

} // namespace detent::inline DETENT_ABI

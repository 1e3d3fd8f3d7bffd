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

namespace detent::inline DETENT_ABI {

/// Rounds activations (token, feature) to a grid, as a layer does with its input. The scale is static, the same for
/// every token, or dynamic, fitted to each token's smallest and largest number. Features may have shifts: number j is
/// multiplied by 2^shift before it is rounded, and what it is rounded to by 2^-shift, so that each feature has a power
/// of two of its own below the common scale (LLM-FP4's pre-shifted exponent bias).
class activation_quantizer {
public:
    /// Dynamic.
    explicit activation_quantizer(any_grid grid) : grid_(std::move(grid)) {}

    /// Static; `shifts` (feature) are 0 to 15, or none. @throws error when one is not, or the scale is not positive and
    /// finite.
    activation_quantizer(any_grid grid, tile_scale fixed, std::vector<std::int8_t> shifts = {})
        : grid_(std::move(grid)), fixed_(fixed), shifts_(std::move(shifts)) {
        if (!(fixed.scale > 0) || !std::isfinite(fixed.scale) || !std::isfinite(fixed.zero)) {
            throw error("activations", "cannot be quantized with a scale of " + std::to_string(fixed.scale));
        }
        if (fixed.zero != 0 && !grid_.has_zero()) {
            throw error("activations", "cannot have a zero point on a grid without one");
        }
        for (auto const k : shifts_) {
            if (k < 0 || k > 15) {
                throw error("activations", "cannot be shifted by " + std::to_string(k) + " bits");
            }
        }
        factors_.resize(std::ssize(shifts_));
        std::ranges::transform(shifts_, factors_.begin(), [](int k) { return std::ldexp(1.0F, k); });
    }

    any_grid const& grid() const { return grid_; }
    /// The scale of all tokens; none where each has its own.
    std::optional<tile_scale> fixed() const { return fixed_; }
    /// Of each feature; empty for none.
    std::vector<std::int8_t> const& shifts() const { return shifts_; }

    /// The codes of `x` (token, feature). @throws error when a number is not finite.
    quantized_activations quantize(matrix_view x, executor_ref executor = {}) const {
        quantized_activations q{.shape = shape_of(x),
                                .bits = grid_.bits(),
                                .table = grid_.table(),
                                .scales = std::vector<tile_scale>(fixed_ ? 1 : static_cast<std::size_t>(x.rows())),
                                .shifts = shifts_,
                                .codes = std::vector<code>(static_cast<std::size_t>(x.size()))};
        if (fixed_) {
            q.scales.front() = *fixed_;
        }
        for_tokens(x, executor, [&](index_t t, float const* scaled, tile_scale s, float* numbers) {
            if (!fixed_) {
                q.scales[static_cast<std::size_t>(t)] = s;
            }
            grid_.round(x.cols(), scaled, s, q.codes.data() + t * x.cols(), numbers);
        });
        return q;
    }

    /// The numbers that those codes stand for. @throws error when a number of `x` is not finite.
    matrix round(matrix_view x, executor_ref executor = {}) const {
        matrix rounded(x.rows(), x.cols()); // (token, feature)
        for_tokens(x, executor, [&](index_t t, float const* scaled, tile_scale s, float* numbers) {
            thread_local std::vector<code> codes; // not needed
            codes.resize(static_cast<std::size_t>(x.cols()));
            grid_.round(x.cols(), scaled, s, codes.data(), numbers);
            rounded.row(t) = Eigen::Map<vector const>(numbers, x.cols()).transpose();
            if (factors_.size() > 0) {
                rounded.row(t).array() /= factors_.transpose().array();
            }
        });
        return rounded;
    }

    /// Whether both round alike.
    friend bool operator==(activation_quantizer const& a, activation_quantizer const& b) {
        return a.grid_ == b.grid_ && a.fixed_ == b.fixed_ && a.shifts_ == b.shifts_;
    }

private:
    /// Calls `f(token, shifted numbers, scale, place for numbers)` for every token.
    template <class F> void for_tokens(matrix_view x, executor_ref executor, F const& f) const {
        stopwatch::section const timed(executor.watch(), work::rounding);
        DETENT_EXPECTS(shifts_.empty() || x.cols() == std::ssize(shifts_));
        executor.for_pieces(x.rows(), 16, [&](index_t begin, index_t end) {
            vector scaled(x.cols());
            vector numbers(x.cols());
            for (index_t t = begin; t < end; ++t) {
                scaled = x.row(t).transpose();
                if ((0 * scaled).sum() != 0) { // which only numbers that are not finite make so
                    throw error("activations", "those of token " + std::to_string(t) + " are not finite");
                }
                if (factors_.size() > 0) {
                    scaled.array() *= factors_.array();
                }
                tile_scale const s = fixed_ ? *fixed_ : grid_.lay(interval::of(grid_, scaled.transpose()));
                f(t, scaled.data(), s, numbers.data());
            }
        });
    }

    any_grid grid_;
    std::optional<tile_scale> fixed_;
    std::vector<std::int8_t> shifts_;
    vector factors_; // 2^shifts
};

} // namespace detent::inline DETENT_ABI

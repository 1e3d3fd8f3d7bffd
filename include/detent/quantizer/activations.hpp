// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <concepts>
#include <string>

#include "detent/core/error.hpp"
#include "detent/granularity/granularity.hpp"
#include "detent/grid/grid.hpp"
#include "detent/grid/name.hpp"
#include "detent/matrix/input_rounding.hpp"
#include "detent/quantizer/quantized_linear.hpp"
#include "detent/quantizer/quantizer.hpp"
#include "detent/scale/any_range.hpp"
#include "detent/scale/block_format.hpp"
#include "detent/scale/default_range.hpp"
#include "detent/solver/rounding_inputs.hpp"

namespace detent::inline DETENT_ABI {

/// Rounds a layer's inputs (token, feature) too: which values exist, who shares a scale, and how a scale is chosen. A
/// granularity gives each token scales of its own, as `per_token` and `per_group` of features do, or all tokens the
/// same, as `per_tensor` does.
///
///     activations<e2m1, per_group<32>> const mxfp4{.format = scale_kind::e8m0};
///     activations<e2m1, per_group<16>> const nvfp4{.format = scale_kind::ue4m3};
///     activations<int_grid<8>, per_tensor, mse_range> const static_int8;
template <Grid G, Granularity P = per_token, class Range = default_range<G>> struct activations {
    static_assert(RangeFor<Range, G>, "this range cannot serve this grid of activations: minmax_range needs a zero "
                                      "point as in int_grid<Bits, zero::free>, absmax_range, mse_range and "
                                      "truncated_range need one or a grid with numbers on both sides of zero");

    G grid = {};
    P granularity = {};
    Range range = {};
    scale_format format = float_format::f32; ///< of scales; its unit, where it has one, is found from the inputs
    /// Whether scales are static, found from inputs that are seen before: always where tokens share them.
    bool fixed = std::same_as<P, per_tensor>;

    /// This policy with its grid known only at run time; the grid has the name that specifications call it, if they
    /// have one.
    /// @throws error when tokens share dynamic scales, or some tokens do and others do not.
    input_rounding rounding() const {
        constexpr index_t many = index_t{1} << 40; // more than any tile has, and so all there are
        extents const tile = granularity.tile({many, many});
        if (tile.rows != 1 && tile.rows != many) {
            raise(error("activations", "cannot share scales in blocks of " + std::to_string(tile.rows) + " tokens"));
        }
        if (tile.rows != 1 && !fixed) {
            raise(error("activations", "that share scales with other tokens must have static ones"));
        }
        return {.grids = {any_grid(grid, name_of(grid))},
                .fixed = fixed,
                .width = tile.cols == many ? 0 : tile.cols,
                .format = format,
                .range = {grid, range}};
    }

    friend bool operator==(activations const&, activations const&) = default;
};

/// Inputs rounded to a `block_format`, each token's groups of features with scales of their own.
template <class Format> constexpr auto activations_of() {
    return activations<typename Format::grid, typename Format::granularity>{.format = Format::format};
}

/// A quantizer of weights and inputs to two such formats, for instance MXFP4 weights and MXFP8 inputs.
template <class Weights, class Inputs, Solver S = rtn> constexpr auto quantizer_of(S solver = {}) {
    using grid = typename Weights::grid;
    return quantizer<grid, typename Weights::granularity, S, default_range<grid>, decltype(activations_of<Inputs>())>{
        .solver = std::move(solver), .activations = activations_of<Inputs>(), .format = Weights::format};
}

} // namespace detent::inline DETENT_ABI

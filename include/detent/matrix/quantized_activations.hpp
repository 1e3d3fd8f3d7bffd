// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <span>
#include <vector>

#include "detent/core/contract.hpp"
#include "detent/core/error.hpp"
#include "detent/core/index.hpp"
#include "detent/scale/tile_scale.hpp"

namespace detent::inline DETENT_ABI {

/// Borrowed `quantized_activations`, as a kernel sees them; the members are theirs.
struct activation_view {
    extents shape;
    int bits = 0;
    std::span<float const> table;
    index_t width = 0;
    std::span<tile_scale const> scales;
    std::span<std::int8_t const> shifts;
    std::span<code const> codes;

    /// Scales of a token.
    index_t groups() const { return width == 0 ? 1 : ceil_div(shape.cols, width); }

    /// The scale of group `group` of `token`.
    tile_scale scale_of_group(index_t token, index_t group) const {
        index_t const row = std::ssize(scales) == groups() ? 0 : token;
        return scales[static_cast<std::size_t>(row * groups() + group)];
    }

    /// The scale of `feature` of `token`.
    tile_scale scale_of(index_t token, index_t feature) const {
        return scale_of_group(token, width == 0 ? 0 : feature / width);
    }

    /// The number at `token` and `feature`.
    float at(index_t token, index_t feature) const {
        DETENT_EXPECTS(token >= 0 && token < shape.rows && feature >= 0 && feature < shape.cols);
        tile_scale const s = scale_of(token, feature);
        code const c = codes[static_cast<std::size_t>(token * shape.cols + feature)];
        int const shift = shifts.empty() ? 0 : shifts[static_cast<std::size_t>(feature)];
        return std::ldexp((table[c] - s.zero) * s.scale, -shift);
    }
};

/// Activations (token, feature) as codes of any grid, with the grid known only at run time. A number is
/// `(table[code] - zero) * scale`, times 2^-shift of its feature.
struct quantized_activations {
    extents shape;                   ///< (token, feature)
    int bits = 0;                    ///< of a code
    std::vector<float> table;        ///< 2^bits numbers; NaN where a code names none
    index_t width = 0;               ///< consecutive features that share a scale, 0 for all; the last may be fewer
    std::vector<tile_scale> scales;  ///< (token, group), or (1, group) for all tokens
    std::vector<std::int8_t> shifts; ///< of each feature, 0 to 15 (LLM-FP4's pre-shifted exponent bias); empty for none
    std::vector<code> codes;         ///< (token, feature)

    activation_view view() const {
        return {.shape = shape,
                .bits = bits,
                .table = {table.data(), table.size()},
                .width = width,
                .scales = {scales.data(), scales.size()},
                .shifts = {shifts.data(), shifts.size()},
                .codes = {codes.data(), codes.size()}};
    }
    operator activation_view() const { return view(); } // NOLINT: implicit on purpose, as a vector is a span

    /// Scales of a token.
    index_t groups() const { return view().groups(); }
    /// The scale of group `group` of `token`.
    tile_scale scale_of_group(index_t token, index_t group) const { return view().scale_of_group(token, group); }
    /// The scale of `feature` of `token`.
    tile_scale scale_of(index_t token, index_t feature) const { return view().scale_of(token, feature); }
    /// The number at `token` and `feature`.
    float at(index_t token, index_t feature) const { return view().at(token, feature); }
};

/// @throws error unless all parts of quantized activations have the sizes that their shape, bits and groups say.
inline void expect_complete(activation_view const& x) {
    auto const complain = [](bool right, char const* problem) { expect_valid(right, "activations", problem); };
    complain(x.shape.rows >= 0 && x.shape.cols >= 0 && x.width >= 0, "have a negative shape or width of groups");
    if (x.shape.size() == 0) {
        return;
    }
    complain(x.bits >= 1 && x.bits <= 8 && x.table.size() == std::size_t{1} << x.bits, "have not 2^bits numbers");
    complain(std::ssize(x.codes) == x.shape.size(), "have not one code for each number");
    complain(std::ssize(x.scales) == x.groups() || std::ssize(x.scales) == x.shape.rows * x.groups(),
             "have not one scale for each group");
    complain(x.shifts.empty() || std::ssize(x.shifts) == x.shape.cols, "have not one shift for each feature");
}

} // namespace detent::inline DETENT_ABI

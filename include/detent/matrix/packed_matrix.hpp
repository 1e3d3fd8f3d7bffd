// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "detent/core/buffer.hpp"
#include "detent/core/contract.hpp"
#include "detent/core/error.hpp"
#include "detent/core/same_bits.hpp"
#include "detent/matrix/input_map.hpp"
#include "detent/matrix/packed_view.hpp"
#include "detent/matrix/weak_columns.hpp"
#include "detent/pack/linear.hpp"
#include "detent/scale/scale_store.hpp"

namespace detent::inline DETENT_ABI {

/// A quantized matrix of any grid, with its grid known only at run time: codes in a linear bit stream, the numbers they
/// stand for, scales and zero points. A weight is `(table[code] - zero) * scale`, and meets mapped inputs.
struct packed_matrix {
    int bits = 0;   ///< bits of a code
    extents extent; ///< (out, in)
    extents tile;   ///< weights that share a scale
    scale_store scales;
    std::vector<float> table; ///< 2^bits numbers; NaN where a code names none
    /// What happens to inputs before the product: stored column k is that of number k of the mapped input. Activation
    /// order with groups that follow it needs a permutation, so that groups stay consecutive in storage.
    input_map map = {};
    buffer codes; ///< linear packing, row by row
    /// Columns in high precision. The codes there stand for 0, so that a product may add the two parts.
    weak_columns weak = {};

    extents shape() const { return extent; }
    index_t row_bytes() const { return ceil_div(extent.cols * bits, 8); }

    packed_view view() const {
        return {.codes = codes.data(),
                .row_bytes = row_bytes(),
                .bits = bits,
                .shape = extent,
                .tile = tile,
                .tiles_per_row = scales.tiles.cols,
                .scales = scales.scales.data(),
                .zeros = scales.zeros.empty() ? nullptr : scales.zeros.data(),
                .table = table.data(),
                .consecutive = is_consecutive({table.data(), table.size()}),
                .weak = weak.view(),
                .readable = buffer::padding};
    }

    /// The code at `row` and *stored* column `col`.
    code code_at(index_t row, index_t col) const {
        DETENT_EXPECTS(row >= 0 && row < extent.rows && col >= 0 && col < extent.cols);
        return linear_code(bits, codes.data() + row * row_bytes(), col);
    }

    /// The weight at `row` and *stored* column `col`.
    float stored_at(index_t row, index_t col) const {
        if (index_t const k = weak.find(col); k >= 0) {
            return weak.at(k, row);
        }
        auto const s = scales.at(row / tile.rows, col / tile.cols);
        return (table[code_at(row, col)] - s.zero) * s.scale;
    }

    /// Bits stored for the codes, scales with their unit and zero points (of `bits` bits each), weak columns and their
    /// positions (of 32 bits) together, over the number of weights.
    double bits_per_weight() const {
        auto const tiles = static_cast<double>(scales.tiles.size());
        double const tile_bits = bits_of(scales.format) + (scales.zeros.empty() ? 0 : bits);
        auto const column_bits = static_cast<double>(extent.rows * bits_of(weak.format()) + 32);
        double const unit_bits = scales.format.has_unit() ? bits_of(float_format::f32) : 0;
        return bits + (tiles * tile_bits + unit_bits + static_cast<double>(weak.count()) * column_bits) /
                          static_cast<double>(extent.size());
    }

    /// Bits of a weight as the literature counts them for weak columns: a code or a number in high precision, neither
    /// scales nor the codes that are stored in weak columns.
    double effective_bits() const {
        double const share = extent.cols > 0 ? static_cast<double>(weak.count()) / static_cast<double>(extent.cols) : 0;
        return bits + share * (bits_of(weak.format()) - bits);
    }

    /// A template so that only programs that compare matrices compile it.
    template <std::same_as<packed_matrix> M> friend bool operator==(M const& a, M const& b) {
        return a.bits == b.bits && a.extent == b.extent && a.tile == b.tile && a.scales == b.scales &&
               same_bits(a.table, b.table) && a.map == b.map && a.codes == b.codes && a.weak == b.weak;
    }
};

/// @throws error unless all parts of a packed matrix have the sizes that its shape, tile and bits say, which products
/// rely on; what a quantizer or a file answers has. An empty matrix may lack all.
inline void expect_complete(packed_matrix const& w) {
    auto const [rows, cols] = w.extent;
    if (rows == 0 || cols == 0) {
        return;
    }
    auto const complain = [](bool right, char const* problem) { expect_valid(right, "packed matrix", problem); };
    complain(rows > 0 && cols > 0, "has a negative shape");
    complain(w.bits >= 1 && w.bits <= 8 && w.table.size() == std::size_t{1} << w.bits, "has not 2^bits numbers");
    complain(w.tile.rows > 0 && w.tile.cols > 0 &&
                 w.scales.tiles == extents{ceil_div(rows, w.tile.rows), ceil_div(cols, w.tile.cols)} &&
                 w.scales.complete(),
             "has not one scale for each tile");
    complain(w.codes.size() >= rows * w.row_bytes(), "has too few codes");
    complain(w.weak.empty() || (w.weak.rows() == rows && w.weak.columns().back() < cols),
             "has weak columns of another shape");
}

/// Packs codes (rows of `shape.cols`) into the bytes of a `packed_matrix`.
template <std::same_as<code> Code> buffer pack_rows(int bits, extents shape, Code const* codes) {
    return with_bits(bits, [&]<int Bits> {
        buffer bytes(linear_packing<Bits>::bytes(shape));
        linear_packing<Bits>::pack(codes, shape, bytes.data());
        return bytes;
    });
}

} // namespace detent::inline DETENT_ABI

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <bit>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "detent/grid/grid.hpp"
#include "detent/matrix/activation_quantizer.hpp"
#include "detent/matrix/packed_matrix.hpp"
#include "detent/matrix/weak_columns.hpp"
#include "detent/scale/scale_store.hpp"

namespace detent::inline DETENT_ABI {

/// What a solver met on its way. Nothing here is an error; everything here is worth a look.
struct solve_report {
    double loss = 0;        ///< 0.5 tr(D H D^T), D the error and H the damped Hessian; 0 without a Hessian
    double damping = 0;     ///< the relative damping the factorization needed
    int damping_raised = 0; ///< how many times it had to be multiplied by 10
    index_t dead_columns = 0; ///< inputs that were always zero; their weights became 0
    index_t weak_missing = 0; ///< weak columns asked for beyond the inputs that were ever seen
    std::string fallback;   ///< why the solver rounded to nearest instead; empty when it did not
};

/// A solver's answer for one weight matrix: a code for every weight and a scale for every tile.
struct solution {
    extents shape; ///< (out, in)
    extents tile;
    scale_store scales;
    std::vector<code> codes;         ///< (out, in), columns in stored order
    std::vector<std::int32_t> order; ///< stored column k is input `order[k]`; empty for the natural order
    weak_columns weak = {};          ///< in high precision; the codes there stand for 0
    solve_report report;

    /// The scale of the weight at `row` and stored column `col`.
    tile_scale scale_at(index_t row, index_t col) const { return scales.at(row / tile.rows, col / tile.cols); }
    /// The scales and zero points of all weights of `row`, in stored order.
    void scales_of_row(index_t row, float* scale, float* zero) const {
        for (index_t col = 0; col < shape.cols; ++col) {
            tile_scale const t = scale_at(row, col);
            scale[col] = t.scale;
            zero[col] = t.zero;
        }
    }
    code& code_at(index_t row, index_t col) { return codes[static_cast<std::size_t>(row * shape.cols + col)]; }
    code code_at(index_t row, index_t col) const { return codes[static_cast<std::size_t>(row * shape.cols + col)]; }
};

/// A packed matrix, what its solver reported, and how its input is to be quantized.
struct quantization {
    packed_matrix weights;
    solve_report report;
    std::optional<activation_quantizer> input = {}; ///< none where the input stays as it is
};

/// The solution as packed bytes, where the 2^bits codes stand for the numbers in `table`.
inline packed_matrix pack(std::vector<float> table, solution const& s) {
    int const bits = std::bit_width(table.size()) - 1;
    return {.bits = bits,
            .extent = s.shape,
            .tile = s.tile,
            .scales = s.scales,
            .table = std::move(table),
            .order = s.order,
            .codes = pack_rows(bits, s.shape, s.codes.data()),
            .weak = s.weak};
}

/// The solution on `grid` as packed bytes.
template <Grid G> packed_matrix pack(G const& grid, solution const& s) {
    auto const table = table_of(grid);
    return pack(std::vector<float>(table.begin(), table.end()), s);
}

} // namespace detent::inline DETENT_ABI

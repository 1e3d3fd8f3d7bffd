// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include "detent/core/buffer.hpp"
#include "detent/core/index.hpp"
#include "detent/kernel/floats.hpp"
#include "detent/kernel/weak_columns.hpp"
#include "detent/matrix/packed_view.hpp"
#include "detent/simd/code_lanes.hpp"
#include "detent/simd/nearest.hpp"

// y = x W^T. A register of codes, as they lie in memory, has eight columns in each lane: shifted, each looks up a
// weight that at once meets the inputs of a few tokens. Inputs are put in that order once for all rows.

namespace detent::inline DETENT_ABI::kernel {

/// Tokens that a register of weights meets: their sums for three rows fit the registers.
inline constexpr int most_tokens_at_once = lanes >= 16 ? 7 : 1;
/// Columns of a block of codes: eight to each lane.
inline constexpr index_t block_width = 8 * lanes;

/// Whether blocks are the fastest way to this product. Eight columns from a multiple of eight on must share a scale.
/// Where registers are short or few, blocks are best for one token; for many, sums along few inputs take too long to add
/// up.
inline bool has_blocks(packed_view const& w, index_t tokens) noexcept {
    bool const lanes_share_scales = w.tile.cols % 8 == 0 || w.tile.cols >= w.shape.cols;
    bool const pays = lanes >= 16 ? tokens < 64 || w.shape.cols >= 1024 : lanes >= 8 && tokens == 1;
    return lanes_share_scales && pays;
}

/// Inputs, also in the order in which blocks of codes meet them, in memory that a thread keeps.
struct block_inputs {
    float const* x; ///< (token, in)
    index_t x_stride;
    index_t tokens;
    float const* ordered;      ///< (token, block, 8, lane): lane l of register j of a block is its column 8 l + j
    index_t ordered_stride;    ///< from a token to the next; columns after the last are 0
    std::int32_t const* tiles; ///< (block, lane), the tile in its row that the columns of a lane are of

    static block_inputs of(packed_view const& w, float const* x, index_t x_stride, index_t tokens) {
        thread_local buffer kept;
        index_t const stride = ceil_div(w.shape.cols, block_width) * block_width;
        index_t const bytes = (tokens * stride + stride / 8) * static_cast<index_t>(sizeof(float));
        if (kept.size() < bytes) {
            kept = buffer(bytes);
        }
        auto* const ordered = reinterpret_cast<float*>(kept.data());
        auto* const tiles = reinterpret_cast<std::int32_t*>(ordered + tokens * stride);
        for (index_t k = 0; k < stride; k += 8) {
            tiles[k / 8] = static_cast<std::int32_t>(std::min(k, w.shape.cols - 1) / w.tile.cols);
        }
        for (index_t t = 0; t < tokens; ++t) {
            float* const row = ordered + t * stride;
            for (index_t k = 0; k < stride; k += 8) {
                float const* from = x + t * x_stride + k;
                float last[8] = {};
                if (k + 8 > w.shape.cols) {
                    std::copy(from, from + std::max<index_t>(0, w.shape.cols - k), last);
                    from = last;
                }
                float* const to = row + k / block_width * block_width + k % block_width / 8;
                for (index_t j = 0; j < 8; ++j) {
                    to[j * lanes] = from[j];
                }
            }
        }
        return {x, x_stride, tokens, ordered, stride, tiles};
    }
};

/// y[t][r] = <x[t], w[r]> without weak columns, for rows r = row, row + distance, ... up to `last` and tokens t =
/// token, token + 1, ..., as many as numbers in the two sequences; after the last row, that again. `OneScale` says that
/// the columns of a block share a scale.
template <bool OneScale, class Table, int... Row, int... Token>
void dot_blocks(packed_view const& w, Table const& table, index_t row, index_t distance, index_t last,
                block_inputs const& x, index_t token, float* y, index_t y_stride, std::integer_sequence<int, Row...>,
                std::integer_sequence<int, Token...>) noexcept {
    constexpr index_t rows = sizeof...(Row);
    constexpr index_t tokens = sizeof...(Token);
    constexpr bool table_scaled = OneScale && requires { table.scaled(0.0F, 1.0F); };
    using codes = simd::code_lanes<Table>;
    int const bits = w.bits;
    simd::next_code const next_of(bits);
    index_t const cols = w.shape.cols;
    index_t const whole_cols = cols / block_width * block_width;
    index_t const row_of[] = {std::min(row + Row * distance, last)...};
    std::uint8_t const* const codes_of[] = {(w.codes + row_of[Row] * w.row_bytes)...};
    index_t const tiles_of[] = {(row_of[Row] / w.tile.rows * w.tiles_per_row)...};
    // Of the last block, if it has fewer columns: what follows may be anything.
    std::uint8_t last_codes[rows][128];
    for (index_t r = 0; r < (whole_cols < cols ? rows : 0); ++r) {
        std::memset(last_codes[r], 0, sizeof last_codes[r]);
        std::memcpy(last_codes[r], codes_of[r] + whole_cols / 8 * bits,
                    static_cast<std::size_t>(w.row_bytes - whole_cols / 8 * bits));
    }
    // All indices below are constants, so that registers hold the sums.
    floats sums[tokens][rows];
    auto const each_token = [&](auto const& f) __attribute__((always_inline)) {
        (f(std::integral_constant<int, Token>{}), ...);
    };
    each_token([&](auto t) __attribute__((always_inline)) { ((sums[t][Row] = floats(0.0F)), ...); });
    float const* input = x.ordered + token * x.ordered_stride;
    for (index_t begin = 0; begin < cols; begin += block_width) {
        std::uint8_t const* const bytes[] = {
            (begin < whole_cols ? codes_of[Row] + begin / 8 * bits : last_codes[Row])...};
        (__builtin_prefetch(bytes[Row] + 2048), ...);
        codes const block[] = {codes(bytes[Row], bits)...};

        std::int32_t const* const tiles = x.tiles + begin / 8;
        auto const scale_of = [&](float const* from, index_t r) {
            if constexpr (OneScale) {
                return from[tiles_of[r] + tiles[0]];
            } else { // of each lane
                auto const index = simd::ints::load_unaligned(tiles) - simd::ints(tiles[0]);
                return floats(simd::pick(from + tiles_of[r] + tiles[0], w.tiles_per_row - tiles[0], index));
            }
        };
        using scale = decltype(scale_of(w.scales, 0));
        scale const scales[] = {scale_of(w.scales, Row)...};
        scale const zeros[] = {(w.zeros != nullptr ? scale_of(w.zeros, Row) : scale(0.0F))...};
        auto const table_of = [&](index_t r) {
            if constexpr (table_scaled) {
                return table.scaled(zeros[r], scales[r]);
            } else {
                return table;
            }
        };
        decltype(table_of(0)) const tables[] = {table_of(Row)...};

        for (int part = 0; part < codes::parts; ++part) {
            simd::ints next[] = {block[Row].part(part)...};
#pragma GCC unroll 2
            for (int j = 0; j < codes::codes_per_part; ++j) {
                floats weights[] = {tables[Row](next[Row])...};
                if constexpr (!table_scaled) {
                    ((weights[Row] = (weights[Row] - zeros[Row]) * scales[Row]), ...);
                }
                ((next[Row] = next_of(next[Row])), ...);
                each_token([&](auto t) __attribute__((always_inline)) {
                    floats const from = floats::load_aligned(input + t * x.ordered_stride + j * lanes);
                    ((sums[t][Row] = xsimd::fma(weights[Row], from, sums[t][Row])), ...);
                });
            }
            input += codes::codes_per_part * lanes;
        }
    }
    each_token([&](auto t) __attribute__((always_inline)) {
        static_assert(rows == 3 || rows == 4);
        floats const four[] = {sums[t][0], sums[t][1], sums[t][2], rows == 4 ? sums[t][rows - 1] : floats(0.0F)};
        float totals[4];
        sums_of_four(four, totals);
        ((y[(token + t) * y_stride + row_of[Row]] = totals[Row]), ...);
    });
}

/// The same for rows [first, last) and `Tokens` tokens from `token` on. Rows at a time are far apart: each is then the
/// next bytes of one of a few streams, which memory is read ahead for.
template <bool OneScale, int Tokens, class Table>
void multiply_blocks(packed_view const& w, Table const& table, index_t first, index_t last, block_inputs const& x,
                     index_t token, float* y, index_t y_stride) noexcept {
    constexpr int rows = Tokens <= 5 ? 4 : 3; // whose sums fit the registers
    index_t const distance = ceil_div(last - first, rows);
    for (index_t row = first; row < first + distance; ++row) {
        dot_blocks<OneScale>(w, table, row, distance, last - 1, x, token, y, y_stride,
                             std::make_integer_sequence<int, rows>{}, std::make_integer_sequence<int, Tokens>{});
    }
}

/// The same for all tokens.
template <class Table>
void multiply_blocks(packed_view const& w, Table const& table, index_t first, index_t last, block_inputs const& x,
                     float* y, index_t y_stride) noexcept {
    index_t token = 0;
    auto const next = [&]<bool OneScale, int Tokens> {
        multiply_blocks<OneScale, Tokens>(w, table, first, last, x, token, y, y_stride);
        token += Tokens;
    };
    bool const one_scale = w.tile.cols % block_width == 0 || w.tile.cols >= w.shape.cols;
    while (token < x.tokens) {
        index_t const rest = x.tokens - token;
        index_t const now = ceil_div(rest, ceil_div(rest, most_tokens_at_once)); // about equal parts
        auto const if_now = [&]<int Tokens> {
            if (now == Tokens && one_scale) {
                next.template operator()<true, Tokens>();
            } else if (now == Tokens) {
                next.template operator()<false, Tokens>();
            }
            return now == Tokens;
        };
        [&]<int... Less>(std::integer_sequence<int, Less...>) {
            static_cast<void>((if_now.template operator()<Less + 1>() || ...));
        }(std::make_integer_sequence<int, most_tokens_at_once>{});
    }
}

/// y = x W^T for rows [first, last) of W, whose blocks have inputs in this order.
inline void multiply_blocks(packed_view const& w, index_t first, index_t last, block_inputs const& x, float* y,
                            index_t y_stride) noexcept {
    simd::with_table(w.table, w.bits, w.consecutive,
                     [&](auto const& table) { multiply_blocks(w, table, first, last, x, y, y_stride); });
    for (index_t t = 0; t < x.tokens; ++t) {
        add_weak(w.weak, first, last, x.x + t * x.x_stride, y + t * y_stride);
    }
}

} // namespace detent::inline DETENT_ABI::kernel

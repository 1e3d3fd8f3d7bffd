// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>
#include <utility>

#include "detent/core/executor.hpp"
#include "detent/core/finite.hpp"
#include "detent/core/index.hpp"
#include "detent/kernel/block_inputs.hpp"
#include "detent/kernel/floats.hpp"
#include "detent/kernel/integer_form.hpp"
#include "detent/kernel/known.hpp"
#include "detent/kernel/row_pieces.hpp"
#include "detent/kernel/weak_columns.hpp"
#include "detent/matrix/packed_view.hpp"
#include "detent/matrix/quantized_activations.hpp"
#include "detent/simd/code_lanes.hpp"

// y = x W^T. A register of codes, as they lie in memory, has eight columns in each lane: shifted, each lane looks up
// its weights, which at once meet the inputs of a few tokens. Inputs are put in that order once for all rows.

namespace detent::inline DETENT_ABI::kernel {

/// From more tokens on, panels of integers that many inputs meet are faster than blocks.
inline constexpr index_t most_tokens_of_integer_blocks = 16;

/// Whether the sums of four rows with a token are in the lanes of one register: those of integers with one scale for
/// all columns of a block.
template <bool OneScale, class Table> inline constexpr bool rows_share_register = [] {
    if constexpr (IntegerTable<Table>) {
        return OneScale && Table::input_bytes == 1;
    } else {
        return false;
    }
}();

/// Tokens that a register of weights meets: their sums for three rows fit the registers. Tables for long codes are
/// slower by themselves and not worth the time to compile for more.
template <bool OneScale, class Table>
inline constexpr int most_tokens_at_once = [] {
    if (WideInputsTable<Table>) {
        return 2;
    }
    if (rows_share_register<OneScale, Table>) {
        return 8;
    }
    return lanes < 16 || IntegerTable<Table> || Table::most_bits > 4 ? 4 : 7;
}();

/// Whether rows are decoded once for many tokens: if the table is slow, or its pairs of weights meet as many tokens.
template <class Table>
inline constexpr bool rows_pay_decoding = lanes >= 16 && (Table::most_bits > 4 || Table::one_scale_only) &&
                                          requires(Table const& table, floats v) { table.scaled(v, v); };

/// y[t][r] = <x[t], w[r]> without weak columns, for rows r = row, row + distance, ... up to `last` and tokens t =
/// token, token + 1, ..., as many as numbers in the two sequences; after the last row, that again. `OneScale` says that
/// the columns of a block share a scale.
template <bool OneScale, class Table, int... Row, int... Token>
void dot_blocks(packed_view const& w, Table const& table, simd::next_code const& next_of, index_t row,
                index_t distance, index_t last, block_inputs<Table> const& x, index_t token, float* y,
                index_t y_stride, std::integer_sequence<int, Row...>, std::integer_sequence<int, Token...>) noexcept {
    constexpr int rows = sizeof...(Row);
    constexpr int tokens = sizeof...(Token);
    constexpr bool table_scaled = OneScale && requires(floats v) { table.scaled(v, v); };
    constexpr bool in_quads = rows_share_register<OneScale, Table>;
    constexpr int sum_registers = in_quads ? 1 : rows; // of a token
    using codes = simd::code_lanes<Table>;
    int const bits = w.bits;
    index_t const cols = w.shape.cols;
    index_t const whole_cols = cols / block_width * block_width;
    float const* const zeros_or_scales = w.zeros != nullptr ? w.zeros : w.scales; // branches take longer than loads
    index_t const row_of[] = {std::min(row + Row * distance, last)...};
    std::uint8_t const* const codes_of[] = {(w.codes + row_of[Row] * w.row_bytes)...};
    index_t const tiles_of[] = {((w.tile.rows == 1 ? row_of[Row] : row_of[Row] / w.tile.rows) * w.tiles_per_row)...};
    for (index_t i = w.tiles_per_row; i < 2 * w.tiles_per_row; i += 16) { // of the next rows
        (__builtin_prefetch(w.scales + tiles_of[Row] + i), ...);
        if (w.zeros != nullptr) {
            (__builtin_prefetch(w.zeros + tiles_of[Row] + i), ...);
        }
    }
    // Of the last block, if it has fewer columns: what follows may be anything.
    std::uint8_t last_codes[array_size(rows)][128];
    for (index_t r = 0; r < (whole_cols < cols ? rows : 0); ++r) {
        std::memset(last_codes[r], 0, sizeof last_codes[r]);
        std::memcpy(last_codes[r], codes_of[r] + whole_cols / 8 * bits,
                    static_cast<std::size_t>(w.row_bytes - whole_cols / 8 * bits));
    }
    // All indices below are constants, by packs or unrolled, so that registers hold the sums.
    floats sums[array_size(tokens)][array_size(sum_registers)];
    auto const each_token = [&](auto const& f) __attribute__((always_inline)) {
        (f(std::integral_constant<int, Token>{}), ...);
    };
    each_token([&](auto t) __attribute__((always_inline)) { ((sums[t][Row % sum_registers] = floats(0.0F)), ...); });
    float const* input = x.ordered + token * x.ordered_stride;
    for (index_t begin = 0; begin < cols; begin += block_width) {
        std::uint8_t const* const bytes[] = {
            (begin < whole_cols ? codes_of[Row] + begin / 8 * bits : last_codes[Row])...};
        for (index_t line = 0; line < codes::parts; ++line) { // into the second-level cache
            (__builtin_prefetch(bytes[Row] + 2048 + 64 * line, 0, 2), ...);
        }
        codes const block[] = {codes(bytes[Row], bits)...};

        std::int32_t const* const tiles = x.tiles + begin / 8;
        auto const scale_of = [&](float const* from, index_t r) {
            if constexpr (OneScale) {
                return floats(from[tiles_of[r] + tiles[0]]);
            } else { // of each lane
                auto const index = simd::ints::load_unaligned(tiles) - simd::ints(tiles[0]);
                return floats(simd::pick(from + tiles_of[r] + tiles[0], w.tiles_per_row - tiles[0], index));
            }
        };
        auto const scales_of_rows = [&](float const* from) __attribute__((always_inline)) {
            if constexpr (in_quads) {
                return std::array{kernel::in_quads(from[tiles_of[Row] + tiles[0]]...)};
            } else {
                return std::array{scale_of(from, Row)...};
            }
        };
        auto const scales = scales_of_rows(w.scales);
        auto const zeros = scales_of_rows(zeros_or_scales);

        if constexpr (IntegerTable<Table>) {
            static_assert(block_inputs<Table>::steps == 2);
            constexpr index_t after_inputs = 2 * Table::input_bytes;
            simd::byte_weights const first[] = {table(block[Row].part(0))...};
            simd::byte_weights const second[] = {table.second(block[Row].part(codes::parts - 1))...};
            each_token([&](auto t) __attribute__((always_inline)) {
                float const* const from = input + t * x.ordered_stride;
                auto const at = [&](index_t i) { return simd::in_register(simd::load_words(from + i * lanes)); };
                auto const sums_with_byte = [&](index_t byte, simd::ints const& start) __attribute__((always_inline)) {
                    simd::ints const of_first = at(2 * byte);
                    simd::ints const of_second = at(2 * byte + 1);
                    return std::array{simd::add_products(start, first[Row], of_first, second[Row], of_second)...};
                };
                simd::ints const none(0);
                simd::ints const lacking = at(after_inputs);
                std::remove_const_t<decltype(scales)> exact; // but for one rounding
                if constexpr (in_quads) {
                    exact[0] = xsimd::to_float(simd::sums_in_quads(sums_with_byte(0, lacking).data()));
                } else if constexpr (Table::input_bytes == 1) {
                    auto const sum = sums_with_byte(0, lacking);
                    ((exact[Row] = xsimd::to_float(sum[Row])), ...);
                } else if constexpr (Table::two_sums) {
                    auto const high = sums_with_byte(0, none);
                    auto const middle = sums_with_byte(1, none);
                    auto const low = sums_with_byte(2, none);
                    auto const rest = std::bit_cast<floats>(lacking);
                    ((exact[Row] = xsimd::fma(xsimd::to_float(high[Row]), floats(65536),
                                              xsimd::to_float((middle[Row] << 8) + low[Row]) + rest)),
                     ...);
                } else {
                    auto const high = sums_with_byte(0, none);
                    auto const middle = sums_with_byte(1, none);
                    auto const low = sums_with_byte(2, lacking);
                    ((exact[Row] = xsimd::to_float((((high[Row] << 8) + middle[Row]) << 8) + low[Row])), ...);
                }
                if (w.zeros != nullptr) {
                    auto const lane_sums = std::bit_cast<floats>(at(after_inputs + 2));
#pragma GCC unroll 4
                    for (std::size_t i = 0; i < exact.size(); ++i) {
                        exact[i] = xsimd::fma(zeros[i], lane_sums, exact[i]);
                    }
                }
                auto const lane_scales = std::bit_cast<floats>(at(after_inputs + 1));
#pragma GCC unroll 4
                for (std::size_t i = 0; i < exact.size(); ++i) {
                    sums[t][i] = xsimd::fma(exact[i] * lane_scales, scales[i], sums[t][i]);
                }
            });
        } else {
            auto const zero_of = [&](std::size_t r) { return w.zeros != nullptr ? zeros[r] : floats(0.0F); };
            auto const table_of = [&](std::size_t r) {
                if constexpr (table_scaled) {
                    return table.scaled(zero_of(r), scales[r]);
                } else {
                    return table;
                }
            };
            decltype(table_of(0)) const tables[] = {table_of(Row)...};
#pragma GCC unroll 2
            for (int part = 0; part < codes::parts; ++part) {
                simd::ints next[] = {block[Row].part(part)...};
#pragma GCC unroll 4
                for (int j = 0; j < codes::steps_per_part; ++j) {
                    std::array weights{tables[Row](next[Row])...};
                    if constexpr (!table_scaled) {
                        ((weights[Row] = (weights[Row] - zero_of(Row)) * scales[Row]), ...);
                    }
                    ((next[Row] = next_of(next[Row])), ...);
                    index_t const step = part * codes::steps_per_part + j;
                    each_token([&](auto t) __attribute__((always_inline)) {
                        auto const numbers = floats::load_aligned(input + t * x.ordered_stride + step * lanes);
                        ((sums[t][Row] = simd::add_products(sums[t][Row], weights[Row], numbers)), ...);
                    });
                }
            }
        }
        input += x.registers * lanes;
    }
    each_token([&](auto t) __attribute__((always_inline)) {
        float totals[4];
        if constexpr (in_quads) {
            sums_over_quads(sums[t][0], totals);
        } else {
            static_assert(rows <= 4);
            floats const four[] = {sums[t][0], sums[t][std::min(1, rows - 1)], sums[t][std::min(2, rows - 1)],
                                   sums[t][rows - 1]};
            sums_of_four(four, totals);
        }
        ((y[(token + t) * y_stride + row_of[Row]] = totals[Row]), ...);
    });
}

/// The same for rows [first, last) and `Tokens` tokens from `token` on. Rows at a time are far apart: each is then the
/// next bytes of one of a few streams, which memory is read ahead for.
template <bool OneScale, int Tokens, class Table>
void multiply_blocks(packed_view const& w, Table const& table, index_t first, index_t last,
                     block_inputs<Table> const& x, index_t token, float* y, index_t y_stride) noexcept {
    constexpr int rows = Tokens <= 5 || IntegerTable<Table> ? 4 : 3; // whose sums fit the registers
    index_t const distance = ceil_div(last - first, rows);
    simd::next_code const next_of(Table::bits_to_next(w.bits));
    for (index_t row = first; row < first + distance; ++row) {
        dot_blocks<OneScale>(w, table, next_of, row, distance, last - 1, x, token, y, y_stride,
                             std::make_integer_sequence<int, rows>{}, std::make_integer_sequence<int, Tokens>{});
    }
}

/// Writes the registers of weights of a row, in the order in which inputs are: (block, step, lane). All columns of a
/// block share a scale.
template <class Table>
void decode_blocks(packed_view const& w, Table const& table, index_t row, std::int32_t const* tiles,
                   float* to) noexcept {
    using codes = simd::code_lanes<Table>;
    simd::next_code const next_of(Table::bits_to_next(w.bits));
    std::uint8_t const* const bytes = w.codes + row * w.row_bytes;
    index_t const scales = row / w.tile.rows * w.tiles_per_row;
    for (index_t begin = 0; begin < w.shape.cols; begin += block_width) {
        std::uint8_t last[128] = {}; // of the last block, if it has fewer columns: what follows may be anything
        bool const whole = begin + block_width <= w.shape.cols;
        if (!whole) {
            std::memcpy(last, bytes + begin / 8 * w.bits, static_cast<std::size_t>(w.row_bytes - begin / 8 * w.bits));
        }
        codes const block(whole ? bytes + begin / 8 * w.bits : last, w.bits);
        index_t const tile = scales + tiles[begin / 8];
        auto const scaled = table.scaled(floats(w.zeros != nullptr ? w.zeros[tile] : 0.0F), floats(w.scales[tile]));
        for (int part = 0; part < codes::parts; ++part) {
            simd::ints next = block.part(part);
            for (int j = 0; j < codes::steps_per_part; ++j, next = next_of(next), to += lanes) {
                auto const weights = scaled(next);
                static_assert(sizeof weights == sizeof(floats));
                std::memcpy(to, &weights, sizeof weights);
            }
        }
    }
}

/// y[t][r] = <x[t], w[r]> for four rows, of which `count` are written, from `row` on, decoded so, and tokens from
/// `token` on, as many as numbers in the sequence.
template <class Table, int... Token>
void dot_decoded(float const* weights, block_inputs<Table> const& x, index_t row, index_t count, index_t token,
                 float* y, index_t y_stride, std::integer_sequence<int, Token...>) noexcept {
    using weight = decltype(std::declval<Table const&>()(simd::ints()));
    floats sums[sizeof...(Token)][4];
    ((std::fill(sums[Token], sums[Token] + 4, floats(0.0F))), ...);
    float const* const inputs = x.ordered + token * x.ordered_stride;
    for (index_t i = 0; i < x.ordered_stride; i += lanes) {
        weight of_rows[4];
#pragma GCC unroll 4
        for (int r = 0; r < 4; ++r) {
            std::memcpy(&of_rows[r], weights + r * x.ordered_stride + i, sizeof of_rows[r]);
        }
        auto const add = [&](int t) __attribute__((always_inline)) {
            auto const numbers = floats::load_aligned(inputs + t * x.ordered_stride + i);
#pragma GCC unroll 4
            for (int r = 0; r < 4; ++r) {
                sums[t][r] = simd::add_products(sums[t][r], of_rows[r], numbers);
            }
        };
        (add(Token), ...);
    }
    auto const put = [&](int t) {
        float totals[4];
        sums_of_four(sums[t], totals);
        std::copy_n(totals, count, y + (token + t) * y_stride + row);
    };
    (put(Token), ...);
}

/// Floats that `multiply_blocks` needs for decoded weights.
template <class Table> index_t floats_of_decoded(block_inputs<Table> const& x) noexcept {
    return rows_pay_decoding<Table> && x.tokens >= 32 && x.one_scale ? 4 * x.ordered_stride : 0;
}

/// y = x W^T for rows [first, last) of W, of which four at a time are decoded to `weights` for all tokens.
template <class Table>
void multiply_decoded(packed_view const& w, Table const& table, index_t first, index_t last,
                      block_inputs<Table> const& x, float* y, index_t y_stride, float* weights) {
    for (index_t row = first; row < last; row += 4) {
        for (index_t r = 0; r < 4; ++r) {
            decode_blocks(w, table, std::min(row + r, last - 1), x.tiles, weights + r * x.ordered_stride);
        }
        constexpr int most = 6; // whose sums fit the registers
        auto const multiply = [&]<int Tokens>(index_t token) {
            dot_decoded(weights, x, row, std::min<index_t>(4, last - row), token, y, y_stride,
                        std::make_integer_sequence<int, Tokens>{});
        };
        index_t token = 0;
        for (; token + most <= x.tokens; token += most) {
            multiply.template operator()<most>(token);
        }
        for (; token + 2 <= x.tokens; token += 2) {
            multiply.template operator()<2>(token);
        }
        if (token < x.tokens) {
            multiply.template operator()<1>(token);
        }
    }
}

/// y = x W^T for rows [first, last) of W and all tokens, with `floats_of_decoded` of memory. `OneScale` says that the
/// columns of any block share a scale; else the matrix tells.
template <bool OneScale = false, class Table>
void multiply_blocks(packed_view const& w, Table const& table, index_t first, index_t last,
                     block_inputs<Table> const& x, float* y, index_t y_stride, [[maybe_unused]] float* decoded) {
    index_t token = 0;
    if constexpr (rows_pay_decoding<Table>) {
        if (x.tokens >= 32 && x.one_scale) {
            multiply_decoded(w, table, first, last, x, y, y_stride, decoded);
            token = x.tokens;
        }
    }
    auto const multiply_rest = [&]<bool Shared> {
        constexpr int most = most_tokens_at_once<Shared, Table>;
        while (token < x.tokens) {
            index_t const rest = x.tokens - token;
            index_t const now = ceil_div(rest, ceil_div(rest, index_t{most})); // about equal parts
            [&]<int... Less>(std::integer_sequence<int, Less...>) {
                ((now == Less + 1 ? multiply_blocks<Shared, Less + 1>(w, table, first, last, x, token, y, y_stride)
                                  : void()),
                 ...);
            }(std::make_integer_sequence<int, most>{});
            token += now;
        }
    };
    if (OneScale || x.one_scale) {
        DETENT_EXPECTS(x.one_scale);
        multiply_rest.template operator()<true>();
    } else if constexpr (!OneScale && !Table::one_scale_only) {
        multiply_rest.template operator()<false>();
    }
    for (index_t t = 0; t < x.tokens; ++t) {
        add_weak(w.weak, first, last, x.x + t * x.x_stride, y + t * y_stride);
    }
}

/// All products for inputs in this order, the first of which is number `token` of the call's.
template <class Known = any_weights, class Table>
void multiply_blocks(std::span<matrix_product const> products, Table const& table, block_inputs<Table> const& x,
                     index_t token, scratch& memory, executor_ref executor) {
    // Pieces long enough to be read ahead and worth a thread, whose codes stay near while all tokens meet them.
    index_t const cols = products.front().w.shape.cols;
    index_t const rows = std::max<index_t>(64, (index_t{1} << 20) / std::max<index_t>(cols, 1));
    index_t const bytes = floats_of_decoded(x) * static_cast<index_t>(sizeof(float));
    auto const make = [](std::uint8_t* mine) { return reinterpret_cast<float*>(mine); };
    for_row_pieces(products, token, x.tokens, {rows, x.tokens, bytes}, memory, executor, make,
                   [&](float* decoded, row_piece const& p) {
                       constexpr bool one_scale = Known::tile_cols % block_width == 0;
                       multiply_blocks<one_scale>(p.w, table, p.first, p.last, x, p.y, p.y_stride, decoded);
                   });
}

/// Whether no number of x (token, in) is infinite or none.
inline bool all_finite(float const* x, index_t x_stride, index_t tokens, index_t cols) noexcept {
    simd::ints largest(0); // bits without the sign, of which infinity's are greater than those of any finite number
    index_t const whole = cols / lanes * lanes;
    bool finite = true;
    for (index_t t = 0; t < tokens; ++t, x += x_stride) {
        for (index_t k = 0; k < whole; k += lanes) {
            auto const bits = std::bit_cast<simd::ints>(floats::load_unaligned(x + k)) & simd::ints(0x7FFFFFFF);
            largest = xsimd::max(largest, bits);
        }
        finite &= std::all_of(x + whole, x + cols, [](float v) { return is_finite(v); });
    }
    alignas(64) std::int32_t of_lanes[lanes];
    largest.store_aligned(of_lanes);
    return finite && *std::max_element(of_lanes, of_lanes + lanes) < 0x7F800000;
}

/// All products with floats x, which share inputs, for matrices and formats that have blocks.
template <class Known = any_weights>
void multiply_blocks(std::span<matrix_product const> products, float const* x, index_t x_stride, index_t tokens,
                     input_format format, executor_ref executor) {
    packed_view const& w = products.front().w;
    if (format == input_format::f32 && wide_inputs_pay(w, tokens) && all_finite(x, x_stride, tokens, w.shape.cols) &&
        with_wide_table<Known>(w, [&]<class Table>(Table const& table, byte_numbers const& numbers) {
            scratch memory(executor);
            auto const inputs = block_inputs<Table>::of(memory, w, numbers, x, x_stride, tokens);
            multiply_blocks<Known>(products, table, inputs, 0, memory, executor);
        })) {
        return;
    }
    index_t const most_tokens = 512; // whose inputs are copied
    with_block_table<Known>(w, format, [&]<class Table>(Table const& table, byte_numbers const& numbers) {
        for (index_t t = 0; t < tokens; t += most_tokens) {
            scratch memory(executor);
            auto const inputs = block_inputs<Table>::of(memory, w, numbers, x + t * x_stride, x_stride,
                                                        std::min(most_tokens, tokens - t));
            multiply_blocks<Known>(products, table, inputs, t, memory, executor);
        }
    });
}

/// Whether blocks are the fastest way to the product of these weights without weak columns and activations.
template <class Known = any_weights>
bool has_blocks(integer_form const& form, packed_view const& w, activation_view const& x) {
    return !form.zeros_apart && w.weak.count == 0 && (x.width % 8 == 0 || x.groups() == 1) &&
           has_blocks<Known>(w, x.shape.rows, input_format::int8) && x.shape.rows <= most_tokens_of_integer_blocks;
}

/// Products with activations of bytes in this form, whose matrices share inputs.
template <class Known = any_weights>
void multiply_blocks(integer_form const& form, std::span<matrix_product const> products, activation_view const& x,
                     executor_ref executor) {
    packed_view const& w = products.front().w;
    index_t const width = x.groups() == 1 ? x.shape.cols : x.width;
    auto const fill = [&](index_t t, float unit, std::int8_t* integers, float* scales) {
        code const* const codes = x.codes.data() + t * x.shape.cols;
        for (index_t begin = 0; begin < x.shape.cols; begin += width) {
            index_t const end = std::min(begin + width, x.shape.cols);
            tile_scale const s = x.scale_of(t, begin);
            auto const zero = static_cast<std::int32_t>(std::ldexp(s.zero, form.activations.exponent));
            for (index_t k = begin; k < end; ++k) {
                std::int32_t const integer = form.activations.integers[codes[k]] - zero;
                int const times = x.shifts.empty() ? 0 : form.shift - x.shifts[static_cast<std::size_t>(k)];
                integers[k] = static_cast<std::int8_t>(integer * (1 << times));
            }
            float const scale = std::ldexp(s.scale, -(form.activations.exponent + form.shift)) * unit;
            std::fill(scales + begin / 8, scales + ceil_div(end, 8), scale);
        }
    };
    with_block_table<Known>(w, input_format::int8, [&]<class Table>(Table const& table, byte_numbers const& numbers) {
        if constexpr (IntegerTable<Table>) {
            scratch memory(executor);
            auto const inputs = block_inputs<Table>::of_integers(
                memory, w, numbers, x.shape.rows, width,
                [&](index_t t, std::int8_t* integers, float* scales) { fill(t, numbers.unit, integers, scales); });
            // Scales of activations may differ in a block: nothing is known.
            multiply_blocks(products, table, inputs, 0, memory, executor);
        }
    });
}

} // namespace detent::inline DETENT_ABI::kernel

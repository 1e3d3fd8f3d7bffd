// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "detent/core/executor.hpp"
#include "detent/core/half.hpp"
#include "detent/core/index.hpp"
#include "detent/kernel/byte_numbers.hpp"
#include "detent/kernel/floats.hpp"
#include "detent/kernel/input_format.hpp"
#include "detent/kernel/known.hpp"
#include "detent/matrix/packed_view.hpp"
#include "detent/simd/code_lanes.hpp"
#include "detent/simd/small_tables.hpp"

namespace detent::inline DETENT_ABI::kernel {

/// Columns of a block of codes: eight to each lane.
inline constexpr index_t block_width = 8 * lanes;

/// A table whose weights are integers: their products are summed exactly in each block.
template <class Table>
concept IntegerTable = requires(Table const& table, simd::ints v) { simd::byte_weights(table(v)); };

/// A table of integers for inputs that are integers of several bytes.
template <class Table>
concept WideInputsTable = IntegerTable<Table> && Table::input_bytes > 1;

/// Whether all columns of any block share a scale.
inline bool blocks_share_scales(packed_view const& w) noexcept {
    return w.tile.cols % block_width == 0 || w.tile.cols >= w.shape.cols;
}

/// Calls `f(table, numbers)` with the fastest kind of table of bytes for these weights, and answers whether there is
/// one.
template <class Known = any_weights, class F> bool with_byte_table(packed_view const& w, F const& f) {
    auto const numbers = byte_numbers::of(w);
    [[maybe_unused]] auto const use = [&]<class Table>(Table const& table) {
        if constexpr (Known::template may_use<Table>()) {
            f(table, *numbers);
        }
        return true;
    };
    if constexpr (simd::nibble_bytes::exists) {
        if (numbers && w.bits == 4) {
            return use(simd::nibble_bytes(numbers->bytes, w.bits));
        }
    }
#if defined(__AVX512VBMI__)
    if (numbers && w.bits <= 4) {
        return use(simd::bytes_in_register<1, 4>(numbers->bytes, w.bits));
    }
    if (numbers && w.bits <= 6) {
        return use(simd::bytes_in_register<5, 6>(numbers->bytes, w.bits));
    }
    if (numbers && w.bits == 8) {
        return use(simd::codes_as_bytes{});
    }
#endif
    return false;
}

/// Calls `f(table, numbers)` with the fastest kind of table for these weights and this format of inputs, and answers
/// whether there is one; `numbers` are of meaning to a table of integers.
template <class Known = any_weights, class F>
bool with_block_table(packed_view const& w, input_format format, F const& f) {
    if (format == input_format::f32) {
        simd::with_table(w.table, w.bits, w.consecutive, w.zeros != nullptr, [&]<class Table>(Table const& table) {
            if constexpr (Known::template may_use<Table>()) {
                f(table, byte_numbers{});
            }
        });
        return true;
    }
#if defined(__AVX512VBMI__) && defined(__AVX512BF16__)
    if constexpr (Known::takes(input_format::bf16) && Known::template may_use<simd::bfloats_in_register>()) {
        if (format == input_format::bf16 && w.bits <= simd::bfloats_in_register::most_bits && blocks_share_scales(w)) {
            f(simd::bfloats_in_register(w.table, w.bits), byte_numbers{});
            return true;
        }
    }
#endif
    if constexpr (Known::takes(input_format::int8)) {
        return format == input_format::int8 && with_byte_table<Known>(w, f);
    } else {
        return false;
    }
}

/// The same for floats as integers of three bytes: a table of integers, for small numbers.
template <class Known = any_weights, class F> bool with_wide_table(packed_view const& w, F const& f) {
    bool found = false;
    with_byte_table<Known>(w, [&]<class Table>(Table const& table, byte_numbers const& numbers) {
        using wide = simd::for_wide_inputs<Table>;
        if constexpr (Known::template may_use<wide>()) {
            found = numbers.exact && sums_fit<wide>(numbers.table);
            if (found) {
                f(wide{table}, numbers);
            }
        }
    });
    return found;
}

/// Up to so many tokens, floats as integers of three bytes are faster than as floats: registers of 512 bits look floats
/// up, too.
inline constexpr index_t most_tokens_of_wide_inputs = lanes >= 16 ? 2 : 8;

/// Whether floats as integers of three bytes are faster than as floats, if there is a table for them, and their sums
/// long enough that the errors are not larger.
inline bool wide_inputs_pay(packed_view const& w, index_t tokens) {
    return tokens <= most_tokens_of_wide_inputs && w.shape.cols >= 256;
}

/// Whether blocks are the fastest way to this product. Eight columns from a multiple of eight on must share a scale.
/// For many tokens, floats are faster in panels of W^T: where registers are short or few, and where rows are, as sums
/// along few inputs take too long to add up.
template <class Known = any_weights>
bool has_blocks(packed_view const& w, index_t tokens, input_format format = input_format::f32) {
    if (w.tile.cols % 8 != 0 && w.tile.cols < w.shape.cols) {
        return false;
    }
    if (format == input_format::int8) {
        return with_block_table<Known>(w, format, [](auto const&...) {});
    }
    index_t const most_floats = lanes >= 16 ? (w.shape.cols >= 1024 ? tokens : 63) : w.bits <= 4 ? 16 : 4;
    bool const pays = (lanes >= 8 && tokens <= most_floats) ||
                      (wide_inputs_pay(w, tokens) && with_wide_table<Known>(w, [](auto const&...) {}));
    return pays && (format == input_format::f32 || with_block_table<Known>(w, format, [](auto const&...) {}));
}

/// Inputs, also in the order in which blocks of codes meet them, in memory of a scratch.
template <class Table> struct block_inputs {
    static constexpr index_t steps = 8 / Table::codes_per_step;
    /// Registers of a block: the inputs of each step; of integers also what their products with bytes lack to those
    /// with numbers of the grid (a float where there are two sums), their scale, and minus their sum for zero points,
    /// in each lane; scales and sums of bytes in each four lanes where blocks share scales of weights.
    static constexpr index_t registers = [] {
        if constexpr (IntegerTable<Table>) {
            return steps * Table::input_bytes + 3;
        } else {
            return steps;
        }
    }();

    float const* x; ///< (token, in)
    index_t x_stride;
    index_t tokens;
    float* ordered;         ///< (token, block, register, lane); columns after the last are 0
    index_t ordered_stride; ///< from a token to the next
    std::int32_t* tiles;    ///< (block, lane), the tile in its row that the columns of a lane are of
    bool one_scale;         ///< whether all columns of any block share a scale of weights, and each four lanes one of x

    /// Of floats (token, in).
    static block_inputs of(scratch& memory, packed_view const& w, byte_numbers const& numbers, float const* x,
                           index_t x_stride, index_t tokens) {
        if constexpr (WideInputsTable<Table>) {
            block_inputs const result = in_memory(memory, w, tokens, 0);
            for (index_t t = 0; t < tokens; ++t) {
                float* to = result.ordered + t * result.ordered_stride;
                for (index_t begin = 0; begin < w.shape.cols; begin += block_width, to += registers * lanes) {
                    put_wide(numbers, x + t * x_stride + begin, std::min(block_width, w.shape.cols - begin), to);
                }
            }
            return {x, x_stride, tokens, result.ordered, result.ordered_stride, result.tiles, result.one_scale};
        } else if constexpr (IntegerTable<Table>) {
            auto const fill = [&](index_t t, std::int8_t* integers, float* scales) {
                float const* const row = x + t * x_stride;
                for_input_groups(w, [&](index_t begin, index_t end) {
                    float const scale = round_to_bytes(row + begin, end - begin, integers + begin);
                    std::fill(scales + begin / 8, scales + ceil_div(end, 8), scale * numbers.unit);
                });
            };
            block_inputs result = of_integers(memory, w, numbers, tokens, w.shape.cols, fill);
            result.x = x;
            result.x_stride = x_stride;
            return result;
        } else {
            index_t const padded = ceil_div(w.shape.cols, block_width) * block_width;
            block_inputs const result = in_memory(memory, w, tokens, 0);
            for (index_t t = 0; t < tokens; ++t) {
                float const* const row = x + t * x_stride;
                float* const to = result.ordered + t * result.ordered_stride;
                index_t const whole = w.shape.cols / 8 * 8;
                put_in_order(row, whole, to);
                float last[8] = {};
                std::copy(row + whole, row + w.shape.cols, last);
                for (index_t k = whole; k < padded; k += 8) {
                    put_lane(last, k, to);
                    std::fill(last, last + 8, 0.0F);
                }
            }
            return {x, x_stride, tokens, result.ordered, result.ordered_stride, result.tiles, result.one_scale};
        }
    }

    /// Of integers that `fill(token, integers, scales)` writes, and a scale for each lane of eight; `width` columns,
    /// all or a multiple of 8, share one. There are no floats for weak columns.
    template <class Fill>
    static block_inputs of_integers(scratch& memory, packed_view const& w, byte_numbers const& numbers,
                                    index_t tokens, index_t width, Fill const& fill) {
        index_t const blocks = ceil_div(w.shape.cols, block_width);
        index_t const padded = blocks * block_width; // columns
        block_inputs result = in_memory(memory, w, tokens, padded + padded / 2);
        result.one_scale = result.one_scale && (width % 32 == 0 || width >= w.shape.cols);
        auto* const scales = reinterpret_cast<float*>(result.tiles + padded / 8);
        auto* const integers = reinterpret_cast<std::int8_t*>(scales + padded / 8);
        std::fill(integers + w.shape.cols, integers + padded, std::int8_t{0});
        std::fill(scales, scales + padded / 8, 0.0F);
        for (index_t t = 0; t < tokens; ++t) {
            fill(t, integers, scales);
            float* const to = result.ordered + t * result.ordered_stride;
            put_in_order(integers, padded, to);
            put_sums_and_scales(numbers, integers, scales, blocks, result.one_scale, to);
        }
        return result;
    }

private:
    /// With tiles, without inputs, and so many bytes more.
    static block_inputs in_memory(scratch& memory, packed_view const& w, index_t tokens, index_t more) {
        index_t const blocks = ceil_div(w.shape.cols, block_width);
        index_t const stride = blocks * registers * lanes;
        auto* const ordered = memory.take<float>(tokens * stride + blocks * lanes + ceil_div(more, 4));
        auto* const tiles = reinterpret_cast<std::int32_t*>(ordered + tokens * stride);
        for (index_t lane = 0; lane < blocks * lanes; ++lane) {
            tiles[lane] = static_cast<std::int32_t>(std::min(8 * lane, w.shape.cols - 1) / w.tile.cols);
        }
        return {nullptr, 0, tokens, ordered, stride, tiles, blocks_share_scales(w)};
    }

    /// Puts the eight inputs of the columns from `k` on into their lane.
    template <class T> static void put_lane(T const* from, index_t k, float* to) noexcept {
        to += k / block_width * registers * lanes + k % block_width / 8;
        if constexpr (IntegerTable<Table>) {
            std::uint64_t eight;
            std::memcpy(&eight, from, sizeof eight);
            constexpr bool in_turns = Table::column(0, 1) == 2; // even columns, then odd ones
            std::uint32_t const steps_of_lane[] = {in_turns ? every_second(eight) : static_cast<std::uint32_t>(eight),
                                                   in_turns ? every_second(eight >> 8)
                                                            : static_cast<std::uint32_t>(eight >> 32)};
            std::memcpy(to, &steps_of_lane[0], sizeof(float));
            std::memcpy(to + lanes, &steps_of_lane[1], sizeof(float));
        } else {
            for (index_t step = 0; step < steps; ++step) {
                if constexpr (Table::codes_per_step == 1) {
                    to[step * lanes] = from[step];
                } else {
                    bfloat16 const pair[] = {bfloat16(from[2 * step]), bfloat16(from[2 * step + 1])};
                    std::memcpy(to + step * lanes, pair, sizeof pair);
                }
            }
        }
    }

    /// The four bytes at even places.
    static std::uint32_t every_second(std::uint64_t bytes) noexcept {
        bytes &= 0x00FF00FF00FF00FF;
        bytes = (bytes | bytes >> 8) & 0x0000FFFF0000FFFF;
        return static_cast<std::uint32_t>(bytes | bytes >> 16);
    }

    /// The sum of eight signed bytes.
    static std::int32_t sum_of_eight(std::int8_t const* from) noexcept {
        std::uint64_t eight;
        std::memcpy(&eight, from, sizeof eight);
        eight ^= 0x8080808080808080; // each plus 128
        std::uint64_t const pairs = (eight & 0x00FF00FF00FF00FF) + (eight >> 8 & 0x00FF00FF00FF00FF);
        return static_cast<std::int32_t>(pairs * 0x0001000100010001 >> 48) - 8 * 128;
    }

    /// The same for the first `n` columns.
    template <class T> static void put_in_order(T const* from, index_t n, float* to) noexcept {
        for (index_t k = 0; k < n; k += 8) {
            put_lane(from + k, k, to);
        }
    }

    /// Puts `n` inputs of a block as integers of 24 bits times a power of two for each lane.
    static void put_wide(byte_numbers const& numbers, float const* from, index_t n, float* to) noexcept {
        alignas(64) float columns[8][lanes] = {};
        for (index_t k = 0; k < n; ++k) {
            columns[k % 8][k / 8] = from[k];
        }
        floats most(0.0F);
        for (auto const& column : columns) {
            most = xsimd::max(most, xsimd::abs(floats::load_aligned(column)));
        }
        // The largest power of two times which all are at most 0x7F7F7F, whose bytes have signs; no more than 2^126.
        auto const exponent_bits = [](int exponent) { return simd::ints(static_cast<int>(unsigned(exponent) << 23)); };
        simd::ints const exponent = xsimd::max(std::bit_cast<simd::ints>(most * floats(1.004F)) & exponent_bits(255),
                                               exponent_bits(23));
        auto const times = std::bit_cast<floats>(exponent_bits(127 + 127 + 22) - exponent);
        auto const unit = std::bit_cast<floats>(exponent - exponent_bits(22));
        simd::ints words[Table::input_bytes][array_size(steps)];
        for (auto& of_byte : words) {
            std::fill(of_byte, of_byte + steps, simd::ints(0));
        }
        simd::ints sum(0);
#pragma GCC unroll 4
        for (index_t i = 0; i < Table::codes_per_step; ++i) {
#pragma GCC unroll 2
            for (index_t step = 0; step < steps; ++step) {
                auto const column = floats::load_aligned(columns[Table::column(step, i)]);
                simd::ints integer = xsimd::to_int(xsimd::nearbyint(column * times));
                sum += integer;
#pragma GCC unroll 3
                for (int byte = Table::input_bytes - 1; byte >= 0; --byte) {
                    words[byte][step] |= (integer & simd::ints(0xFF)) << static_cast<int>(8 * i);
                    integer = (integer + simd::ints(0x80)) >> 8; // as lower bytes have signs
                }
            }
        }
        auto const put = [&](floats v) {
            v.store_aligned(to);
            to += lanes;
        };
        for (auto const& of_byte : words) {
            for (simd::ints const& word : of_byte) {
                put(std::bit_cast<floats>(word));
            }
        }
        if constexpr (Table::two_sums) {
            put(xsimd::to_float(sum) * floats(static_cast<float>(numbers.base)));
        } else {
            put(std::bit_cast<floats>(sum * simd::ints(numbers.base)));
        }
        put(unit * floats(numbers.unit));
        put(xsimd::to_float(sum) * floats(-std::ldexp(1.0F, numbers.table.exponent)));
    }

    static void put_sums_and_scales(byte_numbers const& numbers, std::int8_t const* integers, float const* scales,
                                    index_t blocks, bool in_quads, float* to) noexcept {
        float const per_unit = std::ldexp(1.0F, numbers.table.exponent);
        for (index_t b = 0; b < blocks; ++b) {
            float* const sums = to + (b * registers + steps) * lanes;
            for (index_t lane = 0; lane < lanes; ++lane) {
                std::int32_t const sum = sum_of_eight(integers + b * block_width + lane * 8);
                std::int32_t const lacking = numbers.base * sum;
                std::memcpy(sums + lane, &lacking, sizeof lacking);
                sums[lanes + lane] = scales[b * lanes + lane];
                sums[2 * lanes + lane] = static_cast<float>(sum) * -per_unit;
            }
            for (index_t lane = 0; lane < (in_quads ? lanes : 0); lane += 4) { // the first has columns if any has
                std::fill_n(sums + lanes + lane, 4, sums[lanes + lane]);
                float* const quad = sums + 2 * lanes + lane;
                std::fill_n(quad, 4, quad[0] + quad[1] + quad[2] + quad[3]);
            }
        }
    }
};

} // namespace detent::inline DETENT_ABI::kernel

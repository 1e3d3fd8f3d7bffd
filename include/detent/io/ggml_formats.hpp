// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <limits>

#include "detent/core/index.hpp"
#include "detent/grid/codebook_grid.hpp"
#include "detent/grid/fp_grid.hpp"
#include "detent/io/ggml_blocks.hpp"
#include "detent/pack/ggml.hpp"

// The fields of each kind of block of ggml that is read; what the members mean is said in io/ggml_blocks.hpp. A scale
// "at" a place is at so many bytes from the start of the block.

namespace detent::inline DETENT_ABI::io::ggml {

/// Blocks of one f16 scale, whose codes stand for the integers from `Lowest` on.
template <int Bits, index_t Bytes, index_t CodesAt, index_t ScaleAt, int Lowest> struct symmetric_block {
    using packing = ggml_packing<Bits, Bytes>;
    static constexpr int bits = Bits;
    static constexpr index_t block_codes = packing::block_codes;
    static constexpr index_t block_bytes = Bytes;
    static constexpr index_t codes_at = CodesAt;
    static constexpr index_t tile_cols = block_codes;
    static constexpr scale_kind format = scale_kind::f16;
    static constexpr bool has_least = false;
    static constexpr float number(code c) { return static_cast<float>(c + Lowest); }
    static float scale(std::uint8_t const* block, index_t) { return half_at(block + ScaleAt); }
    static void put_scale(std::uint8_t* block, index_t, float scale, scale_format) { put_half(scale, block + ScaleAt); }
};

using q4_0 = symmetric_block<4, 18, 2, 0, -8>;
using q5_0 = symmetric_block<5, 22, 2, 0, -16>;
using tq2_0 = symmetric_block<2, 66, 0, 64, -1>;

/// Stores integers in two's complement; codes here count from the lowest.
struct q8_0 : symmetric_block<8, 34, 2, 0, -128> {
    static constexpr code flip = 0x80;
};

/// -1 and +1.
struct q1_0 : symmetric_block<1, 18, 2, 0, 0> {
    static constexpr float number(code c) { return c == 0 ? -1.0F : 1.0F; }
};

/// The numbers of ggml's nonlinear grid of 4 bits.
inline constexpr std::array<float, 16> nonlinear_numbers{-127, -104, -83, -65, -49, -35, -22, -10,
                                                         1,    13,   25,  38,  53,  69,  89,  113};

struct iq4_nl : symmetric_block<4, 18, 2, 0, 0> {
    static constexpr float number(code c) { return nonlinear_numbers[c]; }
};

/// Blocks of an f16 scale and an f16 number that is added to all weights, in the first 4 bytes.
template <int Bits, index_t Bytes> struct shifted_block : symmetric_block<Bits, Bytes, 4, 0, 0> {
    static constexpr bool has_least = true;
    static float least(std::uint8_t const* block, index_t) { return half_at(block + 2); }
    static void put_least(std::uint8_t* block, index_t, float least) { put_half(least, block + 2); }
};

using q4_1 = shifted_block<4, 20>;
using q5_1 = shifted_block<5, 24>;

struct mxfp4 {
    using packing = ggml_packing<4, 17>;
    static constexpr int bits = 4;
    static constexpr index_t block_codes = 32;
    static constexpr index_t block_bytes = 17;
    static constexpr index_t codes_at = 1;
    static constexpr index_t tile_cols = 32;
    static constexpr scale_kind format = scale_kind::e8m0;
    static constexpr bool has_least = false;
    static constexpr float number(code c) { return e2m1::decode(c); }
    static float scale(std::uint8_t const* block, index_t) { return scale_of(format, block[0]); }
    static void put_scale(std::uint8_t* block, index_t, float scale, scale_format) {
        block[0] = byte_of(scale_kind::e8m0, scale);
    }
};

/// Four E4M3 scales, then the codes of 16 weights in 8 bytes each: byte j has code j below and code j + 8 above. The
/// unit of the scales, one for the matrix, is not in the blocks.
struct nvfp4 {
    static constexpr int bits = 4;
    static constexpr index_t block_codes = 64;
    static constexpr index_t block_bytes = 36;
    static constexpr index_t tile_cols = 16;
    static constexpr scale_kind format = scale_kind::ue4m3;
    static constexpr bool has_least = false;
    static constexpr float number(code c) { return e2m1::decode(c); }
    static void codes(std::uint8_t const* block, code* out) {
        for (index_t tile = 0; tile < 4; ++tile) {
            for (index_t j = 0; j < 8; ++j) {
                std::uint8_t const two = block[4 + 8 * tile + j];
                out[16 * tile + j] = two & 15;
                out[16 * tile + j + 8] = two >> 4;
            }
        }
    }
    static void put_codes(code const* codes, std::uint8_t* block) {
        for (index_t i = 0; i < 32; ++i) {
            code const* const pair = codes + i / 8 * 16 + i % 8;
            block[4 + i] = static_cast<std::uint8_t>(pair[0] | pair[8] << 4);
        }
    }
    static float scale(std::uint8_t const* block, index_t i) { return block[i] == 0 ? 0 : scale_of(format, block[i]); }
    static void put_scale(std::uint8_t* block, index_t i, float scale, scale_format stored_as) {
        block[i] = byte_of({format, stored_as.has_unit() ? stored_as.unit : 1}, scale);
    }
};

/// Weights -1, 0 and 1 as digits of base 3, five in each of 48 bytes and four in each of the last 4. A byte has the
/// fraction n / 3^5 in 256ths, rounded up, so that each product with 3 brings the next digit of n above it.
struct tq1_0 {
    static constexpr int bits = 2;
    static constexpr index_t block_codes = 256;
    static constexpr index_t block_bytes = 54;
    static constexpr index_t tile_cols = 256;
    static constexpr scale_kind format = scale_kind::f16;
    static constexpr bool has_least = false;
    static constexpr float number(code c) { return ternary::decode(c); }

    /// Calls `f(byte, digit, weight)` for every weight of a block.
    template <class F> static constexpr void for_each_digit(F const& f) {
        struct run {
            index_t byte, bytes, digits;
        };
        index_t weight = 0;
        for (auto const& [byte, bytes, digits] : {run{0, 32, 5}, run{32, 16, 5}, run{48, 4, 4}}) {
            for (index_t digit = 0; digit < digits; ++digit) {
                for (index_t i = 0; i < bytes; ++i) {
                    f(byte + i, digit, weight++);
                }
            }
        }
    }
    static constexpr int powers[] = {1, 3, 9, 27, 81};

    static void codes(std::uint8_t const* block, code* out) {
        for_each_digit([&](index_t byte, index_t digit, index_t weight) {
            out[weight] = static_cast<code>((block[byte] * powers[digit] & 255) * 3 >> 8);
        });
    }
    static void put_codes(code const* codes, std::uint8_t* block) {
        std::array<int, 52> numbers{};
        for_each_digit([&](index_t byte, index_t digit, index_t weight) {
            numbers[static_cast<std::size_t>(byte)] += codes[weight] * powers[4 - digit];
        });
        for (std::size_t i = 0; i < numbers.size(); ++i) {
            block[i] = static_cast<std::uint8_t>((numbers[i] * 256 + 242) / 243);
        }
    }
    static float scale(std::uint8_t const* block, index_t) { return half_at(block + 52); }
    static void put_scale(std::uint8_t* block, index_t, float scale, scale_format) { put_half(scale, block + 52); }
};

/// A scale, then a bit stream of the codes of 64 weights -1, 0, 1 or 2.
struct q2_0 {
    static constexpr int bits = 2;
    static constexpr index_t block_codes = 64;
    static constexpr index_t block_bytes = 18;
    static constexpr index_t tile_cols = 64;
    static constexpr scale_kind format = scale_kind::f16;
    static constexpr bool has_least = false;
    static constexpr index_t linear_codes_at = 2;
    static constexpr float number(code c) { return static_cast<float>(c - 1); }
    static float scale(std::uint8_t const* block, index_t) { return half_at(block); }
    static void put_scale(std::uint8_t* block, index_t, float scale, scale_format) { put_half(scale, block); }
};

// Blocks of 256 weights whose scales have two levels: a small integer for each tile times an f16 number of the block.
// Such products are exact in float. Those that are written have the range of these integers, `lowest` to `highest`, and
// `put_factors(block, factors, least)`: what io/ggml_super_blocks.hpp finds of a block, `least` where there is such.

/// What these blocks have in common: codes count from `Lowest`, `TileCols` weights share a scale.
template <int Bits, index_t Bytes, index_t TileCols, int Lowest, bool HasLeast = false> struct super_block {
    static constexpr index_t tiles = 256 / TileCols;
    static constexpr int bits = Bits;
    static constexpr index_t block_codes = 256;
    static constexpr index_t block_bytes = Bytes;
    static constexpr index_t tile_cols = TileCols;
    static constexpr scale_kind format = scale_kind::f32;
    static constexpr bool has_least = HasLeast;
    static constexpr float number(code c) { return static_cast<float>(c + Lowest); }
};

/// Calls `f(run, i)` for all codes of 256, code i of each run of 32 consecutive ones, whose bits lie alike.
template <class F> constexpr void for_each_of_runs(F const& f) {
    for (index_t run = 0; run < 8; ++run) {
        for (index_t i = 0; i < 32; ++i) {
            f(run, i);
        }
    }
}

/// The 2 bits of code i of a run, as all these blocks store such.
constexpr int two_bits(std::uint8_t const* bytes, index_t run, index_t i) {
    return bytes[run / 4 * 32 + i] >> (run % 4 * 2) & 3;
}

/// Sets bits that are 0.
constexpr void set_bits(std::uint8_t& byte, int bits, index_t place) {
    byte = static_cast<std::uint8_t>(byte | bits << place);
}

constexpr void put_two_bits(std::uint8_t* bytes, index_t run, index_t i, int bits) {
    set_bits(bytes[run / 4 * 32 + i], bits, run % 4 * 2);
}

/// The scales of a block's tiles, or what is subtracted from them: an f16 number and what multiplies it.
struct block_factors {
    float unit = 0;
    std::array<int, 16> integers{};
};

/// 16 bytes with a scale below and a least number above, the codes, their f16 factors.
struct q2_k : super_block<2, 84, 16, 0, true> {
    using packing = ggml_packing<2, 84>;
    static constexpr index_t codes_at = 16;
    static float scale(std::uint8_t const* block, index_t i) {
        return half_at(block + 80) * static_cast<float>(block[i] & 15);
    }
    static float least(std::uint8_t const* block, index_t i) {
        return -half_at(block + 82) * static_cast<float>(block[i] >> 4);
    }
    static constexpr int lowest = 0, highest = 15;
    static void put_factors(std::uint8_t* block, block_factors const& factors, block_factors const& least) {
        for (std::size_t i = 0; i < 16; ++i) {
            block[i] = static_cast<std::uint8_t>(factors.integers[i] | least.integers[i] << 4);
        }
        put_half(factors.unit, block + 80);
        put_half(least.unit, block + 82);
    }
};

/// The highest bits of codes in 32 bytes, the others in 64, scales in 12, an f16 factor.
struct q3_k : super_block<3, 110, 16, -4> {
    static void codes(std::uint8_t const* block, code* out) {
        for_each_of_runs([&](index_t run, index_t i) {
            out[32 * run + i] = static_cast<code>(two_bits(block + 32, run, i) | (block[i] >> run & 1) << 2);
        });
    }
    static float scale(std::uint8_t const* block, index_t i) {
        std::uint8_t const* const s = block + 96;
        int const low = s[i % 8] >> (i / 8 * 4) & 15;
        int const high = s[8 + i % 4] >> (i / 4 * 2) & 3;
        return half_at(block + 108) * static_cast<float>((low | high << 4) - 32);
    }
    static constexpr int lowest = -32, highest = 31;
    static void put_codes(code const* codes, std::uint8_t* block) {
        std::fill_n(block, 96, std::uint8_t{0});
        for_each_of_runs([&](index_t run, index_t i) {
            code const c = codes[32 * run + i];
            put_two_bits(block + 32, run, i, c & 3);
            set_bits(block[i], c >> 2, run);
        });
    }
    static void put_factors(std::uint8_t* block, block_factors const& factors, block_factors const&) {
        std::uint8_t* const s = block + 96;
        std::fill_n(s, 12, std::uint8_t{0});
        for (index_t i = 0; i < 16; ++i) {
            int const factor = factors.integers[static_cast<std::size_t>(i)] + 32;
            set_bits(s[i % 8], factor & 15, i / 8 * 4);
            set_bits(s[8 + i % 4], factor >> 4, i / 4 * 2);
        }
        put_half(factors.unit, block + 108);
    }
};

/// The two f16 factors, then scales and least numbers of 6 bits in 12 bytes: those of the first four tiles in the lower
/// bits of 4 bytes each; of the others the lower 4 bits in the last 4 bytes, the higher 2 above those of the first.
template <int Bits, index_t Bytes> struct q45_k : super_block<Bits, Bytes, 32, 0, true> {
    static float scale(std::uint8_t const* block, index_t i) {
        std::uint8_t const* const s = block + 4;
        int const factor = i < 4 ? s[i] & 63 : (s[i + 4] & 15) | s[i - 4] >> 6 << 4;
        return half_at(block) * static_cast<float>(factor);
    }
    static float least(std::uint8_t const* block, index_t i) {
        std::uint8_t const* const s = block + 4;
        int const factor = i < 4 ? s[i + 4] & 63 : s[i + 4] >> 4 | s[i] >> 6 << 4;
        return -half_at(block + 2) * static_cast<float>(factor);
    }
    /// The lower 4 bits of code i of a run: two runs share 32 bytes.
    static int nibble(std::uint8_t const* bytes, index_t run, index_t i) {
        return bytes[run / 2 * 32 + i] >> (run % 2 * 4) & 15;
    }
    static constexpr int lowest = 0, highest = 63;
    static void put_nibble(std::uint8_t* bytes, index_t run, index_t i, int bits) {
        set_bits(bytes[run / 2 * 32 + i], bits, run % 2 * 4);
    }
    static void put_factors(std::uint8_t* block, block_factors const& factors, block_factors const& least) {
        put_half(factors.unit, block);
        put_half(least.unit, block + 2);
        std::uint8_t* const s = block + 4;
        std::fill_n(s, 12, std::uint8_t{0});
        for (index_t i = 0; i < 4; ++i) {
            auto const first = static_cast<std::size_t>(i), second = first + 4;
            set_bits(s[i], factors.integers[first] | factors.integers[second] >> 4 << 6, 0);
            set_bits(s[i + 4], least.integers[first] | least.integers[second] >> 4 << 6, 0);
            set_bits(s[i + 8], (factors.integers[second] & 15) | (least.integers[second] & 15) << 4, 0);
        }
    }
};

struct q4_k : q45_k<4, 144> {
    static void codes(std::uint8_t const* block, code* out) {
        for_each_of_runs(
            [&](index_t run, index_t i) { out[32 * run + i] = static_cast<code>(nibble(block + 16, run, i)); });
    }
    static void put_codes(code const* codes, std::uint8_t* block) {
        std::fill_n(block + 16, 128, std::uint8_t{0});
        for_each_of_runs([&](index_t run, index_t i) { put_nibble(block + 16, run, i, codes[32 * run + i]); });
    }
};

struct q5_k : q45_k<5, 176> {
    static void codes(std::uint8_t const* block, code* out) {
        for_each_of_runs([&](index_t run, index_t i) {
            out[32 * run + i] = static_cast<code>(nibble(block + 48, run, i) | (block[16 + i] >> run & 1) << 4);
        });
    }
    static void put_codes(code const* codes, std::uint8_t* block) {
        std::fill_n(block + 16, 160, std::uint8_t{0});
        for_each_of_runs([&](index_t run, index_t i) {
            code const c = codes[32 * run + i];
            put_nibble(block + 48, run, i, c & 15);
            set_bits(block[16 + i], c >> 4, run);
        });
    }
};

/// The lower 4 bits of codes in 128 bytes, the higher 2 in 64, signed scales in 16, an f16 factor.
struct q6_k : super_block<6, 210, 16, -32> {
    static void codes(std::uint8_t const* block, code* out) {
        for_each_of_runs([&](index_t run, index_t i) {
            int const low = block[run / 4 * 64 + run % 2 * 32 + i] >> (run % 4 / 2 * 4) & 15;
            out[32 * run + i] = static_cast<code>(low | two_bits(block + 128, run, i) << 4);
        });
    }
    static float scale(std::uint8_t const* block, index_t i) {
        return half_at(block + 208) * static_cast<float>(std::bit_cast<std::int8_t>(block[192 + i]));
    }
    static constexpr int lowest = -128, highest = 127;
    static void put_codes(code const* codes, std::uint8_t* block) {
        std::fill_n(block, 192, std::uint8_t{0});
        for_each_of_runs([&](index_t run, index_t i) {
            code const c = codes[32 * run + i];
            set_bits(block[run / 4 * 64 + run % 2 * 32 + i], c & 15, run % 4 / 2 * 4);
            put_two_bits(block + 128, run, i, c >> 4);
        });
    }
    static void put_factors(std::uint8_t* block, block_factors const& factors, block_factors const&) {
        for (std::size_t i = 0; i < 16; ++i) {
            block[192 + i] = static_cast<std::uint8_t>(factors.integers[i]);
        }
        put_half(factors.unit, block + 208);
    }
};

/// An f16 factor, scales of 6 bits in 2 and 4 bytes, the codes of 32 weights in 16 bytes each.
struct iq4_xs : super_block<4, 136, 32, 0> {
    static constexpr float number(code c) { return nonlinear_numbers[c]; }
    static void codes(std::uint8_t const* block, code* out) {
        for (index_t tile = 0; tile < 8; ++tile) {
            for (index_t j = 0; j < 16; ++j) {
                std::uint8_t const two = block[8 + 16 * tile + j];
                out[32 * tile + j] = two & 15;
                out[32 * tile + j + 16] = two >> 4;
            }
        }
    }
    static float scale(std::uint8_t const* block, index_t i) {
        int const low = block[4 + i / 2] >> (i % 2 * 4) & 15;
        int const high = block[2 + i / 4] >> (i % 4 * 2) & 3;
        return half_at(block) * static_cast<float>((low | high << 4) - 32);
    }
};

} // namespace detent::inline DETENT_ABI::io::ggml

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <string>

#include "detent/core/half.hpp"

namespace detent::test {

/// Number i of a block of ggml, from the description of its bytes, without anything of what is tested.
using ggml_decoder = std::function<double(std::uint8_t const* b, int i)>;

inline double half_number(std::uint8_t const* bytes) {
    half h;
    std::memcpy(&h, bytes, 2);
    return static_cast<float>(h);
}

/// Nibble j of 16 bytes: the lower ones first, then the higher.
inline int split_nibble(std::uint8_t const* bytes, int j) { return j < 16 ? bytes[j] % 16 : bytes[j - 16] / 16; }

inline double e2m1_number(int nibble) {
    constexpr double numbers[] = {0, 0.5, 1, 1.5, 2, 3, 4, 6};
    return nibble < 8 ? numbers[nibble] : -numbers[nibble - 8];
}

inline double nonlinear_number(int nibble) {
    constexpr int numbers[] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
    return numbers[nibble];
}

inline double e4m3_number(std::uint8_t byte) {
    int const exponent = byte / 8;
    return exponent == 0 ? std::ldexp(byte % 8, -9) : std::ldexp(8 + byte % 8, exponent - 10);
}

/// The code of 5 bits of Q5_0 and Q5_1, whose highest bits are at `bytes`.
inline int five_bits(std::uint8_t const* bytes, int i) {
    std::uint32_t high = 0;
    std::memcpy(&high, bytes, 4);
    return split_nibble(bytes + 4, i) + 16 * static_cast<int>(high >> i & 1);
}

/// The code of 2 bits at (half, pair of bits, byte) of i.
inline int pair_of_bits(std::uint8_t const* bytes, int i) {
    int const h = i / 128;
    int const t = i % 128 / 32;
    return bytes[32 * h + i % 32] >> (2 * t) & 3;
}

/// The factors of 6 bits of Q4_K and Q5_K for the 32 numbers j.
inline void factors_of(std::uint8_t const* s, int j, int& scale, int& least) {
    scale = j < 4 ? s[j] & 63 : (s[j + 4] & 15) + 16 * (s[j - 4] >> 6);
    least = j < 4 ? s[j + 4] & 63 : (s[j + 4] >> 4) + 16 * (s[j] >> 6);
}

inline double k45(std::uint8_t const* b, int i, int code) {
    int scale = 0;
    int least = 0;
    factors_of(b + 4, i / 32, scale, least);
    return half_number(b) * scale * code - half_number(b + 2) * least;
}

inline double tq1(std::uint8_t const* b, int i) {
    constexpr int powers[] = {1, 3, 9, 27, 81};
    int const byte = i < 160 ? i % 32 : i < 240 ? 32 + (i - 160) % 16 : 48 + (i - 240) % 4;
    int const digit = i < 160 ? i / 32 : i < 240 ? (i - 160) / 16 : (i - 240) / 4;
    return half_number(b + 52) * ((b[byte] * powers[digit] % 256 * 3 >> 8) - 1);
}

inline double q3(std::uint8_t const* b, int i) {
    int const k = i / 16;
    std::uint8_t const* const s = b + 96;
    int const low = k < 8 ? s[k] & 15 : s[k - 8] >> 4;
    int const high = s[8 + k % 4] >> (2 * (k / 4)) & 3;
    int const missing = (b[i % 32] >> (i / 32) & 1) == 0 ? 4 : 0;
    return half_number(b + 108) * (low + 16 * high - 32) * (pair_of_bits(b + 32, i) - missing);
}

inline double q6(std::uint8_t const* b, int i) {
    int const h = i / 128;
    int const t = i % 128 / 32;
    int const byte = b[64 * h + i % 32 + 32 * (t & 1)];
    int const low = t < 2 ? byte & 15 : byte >> 4;
    std::int8_t scale = 0;
    std::memcpy(&scale, b + 192 + i / 16, 1);
    return half_number(b + 208) * scale * (low + 16 * pair_of_bits(b + 128, i) - 32);
}

/// The decoders of all types of blocks that are read.
inline std::map<std::string, ggml_decoder> const& ggml_decoders() {
    using block = std::uint8_t const*;
    static std::map<std::string, ggml_decoder> const decoders{
        {"Q4_0", [](block b, int i) { return half_number(b) * (split_nibble(b + 2, i) - 8); }},
        {"Q4_1", [](block b, int i) { return half_number(b) * split_nibble(b + 4, i) + half_number(b + 2); }},
        {"Q5_0", [](block b, int i) { return half_number(b) * (five_bits(b + 2, i) - 16); }},
        {"Q5_1", [](block b, int i) { return half_number(b) * five_bits(b + 4, i) + half_number(b + 2); }},
        {"Q8_0", [](block b, int i) { return half_number(b) * (b[2 + i] < 128 ? b[2 + i] : b[2 + i] - 256); }},
        {"Q2_K",
         [](block b, int i) {
             return half_number(b + 80) * (b[i / 16] & 15) * pair_of_bits(b + 16, i) -
                    half_number(b + 82) * (b[i / 16] >> 4);
         }},
        {"Q3_K", q3},
        {"Q4_K",
         [](block b, int i) {
             int const byte = b[16 + 32 * (i / 64) + i % 32];
             return k45(b, i, i / 32 % 2 == 0 ? byte & 15 : byte >> 4);
         }},
        {"Q5_K",
         [](block b, int i) {
             int const byte = b[48 + 32 * (i / 64) + i % 32];
             int const high = b[16 + i % 32] >> (i / 32) & 1;
             return k45(b, i, (i / 32 % 2 == 0 ? byte & 15 : byte >> 4) + 16 * high);
         }},
        {"Q6_K", q6},
        {"IQ4_NL", [](block b, int i) { return half_number(b) * nonlinear_number(split_nibble(b + 2, i)); }},
        {"IQ4_XS",
         [](block b, int i) {
             int const k = i / 32;
             int const low = b[4 + k / 2] >> (4 * (k % 2)) & 15;
             int const high = (b[2] + 256 * b[3]) >> (2 * k) & 3;
             return half_number(b) * (low + 16 * high - 32) * nonlinear_number(split_nibble(b + 8 + 16 * k, i % 32));
         }},
        {"MXFP4", [](block b, int i) { return std::ldexp(1.0, b[0] - 127) * e2m1_number(split_nibble(b + 1, i)); }},
        {"NVFP4",
         [](block b, int i) {
             int const k = i / 16;
             int const byte = b[4 + 8 * k + i % 8];
             return e4m3_number(b[k]) * e2m1_number(i % 16 < 8 ? byte & 15 : byte >> 4);
         }},
        {"TQ1_0", tq1},
        {"TQ2_0", [](block b, int i) { return half_number(b + 64) * (pair_of_bits(b, i) - 1); }},
        {"Q1_0", [](block b, int i) { return half_number(b) * ((b[2 + i / 8] >> (i % 8) & 1) != 0 ? 1 : -1); }},
        {"Q2_0", [](block b, int i) { return half_number(b) * ((b[2 + i / 4] >> (2 * (i % 4)) & 3) - 1); }},
    };
    return decoders;
}

} // namespace detent::test

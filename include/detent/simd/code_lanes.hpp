// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <limits>

#include "detent/core/index.hpp"
#include "detent/simd/lookup.hpp"
#include "detent/simd/nearest.hpp"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

// Codes of a bit stream as registers, eight to each lane of 32 bits, and the floats that the lowest bits of lanes stand
// for. How many bits there are is known at run time, so that a kernel is compiled for few tables and not for all
// numbers of bits.

namespace detent::inline DETENT_ABI::simd {

/// `sums` plus the products of a weight and an input in each lane.
inline floats add_products(floats sums, floats weights, floats inputs) noexcept {
    return xsimd::fma(weights, inputs, sums);
}

/// Where a table of floats is while a product runs, or how its numbers are computed.
enum class table_kind { in_register, in_two_registers, in_memory, floating, consecutive };

/// A table of a float for each code: a step looks one up in each lane.
struct float_table {
    static constexpr int codes_per_step = 1;
    /// Whether the columns of a block must share a scale.
    static constexpr bool one_scale_only = false;
    /// How far the codes of the next step are.
    static constexpr int bits_to_next(int bits) { return bits; }
    /// Which of the eight columns of a lane the `i`-th number of a step is.
    static constexpr index_t column(index_t step, index_t) { return step; }
};

#if defined(__AVX512BW__) || (defined(__AVX2__) && !defined(__AVX512F__))
/// A table of as many floats as a register has, or fewer.
class table_in_register : public float_table {
public:
    static constexpr auto kind = table_kind::in_register;
    static constexpr int fewest_bits = 1;
    static constexpr int most_bits = lanes == 16 ? 4 : 3;

    table_in_register(float const* table, int bits) noexcept {
        alignas(64) float repeated[lanes]; // so that no bit above the code's matters
        for (index_t i = 0; i < lanes; ++i) {
            repeated[i] = table[i % (1 << bits)];
        }
        numbers_ = floats::load_aligned(repeated);
    }

    floats operator()(ints codes) const noexcept {
#if defined(__AVX512F__)
        return floats(_mm512_permutexvar_ps(codes, numbers_));
#else
        return floats(_mm256_permutevar8x32_ps(numbers_, codes));
#endif
    }

    /// The table of (number - zero) * scale.
    table_in_register scaled(floats zero, floats scale) const noexcept {
        table_in_register result(*this);
        result.numbers_ = (numbers_ - zero) * scale;
        return result;
    }

private:
    floats numbers_;
};

/// A table of as many floats as two registers have.
class table_in_two_registers : public float_table {
public:
    static constexpr auto kind = table_kind::in_two_registers;
    static constexpr int fewest_bits = table_in_register::most_bits + 1;
    static constexpr int most_bits = fewest_bits;

    table_in_two_registers(float const* table, int) noexcept
        : low_(floats::load_unaligned(table)), high_(floats::load_unaligned(table + lanes)) {}

    floats operator()(ints codes) const noexcept {
#if defined(__AVX512F__)
        return floats(_mm512_permutex2var_ps(low_, codes, high_));
#else
        __m256 const upper = _mm256_castsi256_ps(_mm256_slli_epi32(codes, 28)); // bit 3 selects the upper half
        return floats(_mm256_blendv_ps(_mm256_permutevar8x32_ps(low_, codes), _mm256_permutevar8x32_ps(high_, codes),
                                       upper));
#endif
    }

    /// The table of (number - zero) * scale.
    table_in_two_registers scaled(floats zero, floats scale) const noexcept {
        table_in_two_registers result(*this);
        result.low_ = (low_ - zero) * scale;
        result.high_ = (high_ - zero) * scale;
        return result;
    }

private:
    floats low_;
    floats high_;
};
#endif

/// The fewest bits for which a table is not held in registers.
inline constexpr int bits_in_memory =
#if defined(__AVX512BW__) || (defined(__AVX2__) && !defined(__AVX512F__))
    table_in_two_registers::most_bits + 1;
#else
    1;
#endif

/// A table of any size in memory.
class table_in_memory : public float_table {
public:
    static constexpr auto kind = table_kind::in_memory;
    static constexpr int fewest_bits = bits_in_memory;
    static constexpr int most_bits = 8;

    table_in_memory(float const* table, int bits) noexcept : table_(table), mask_((1 << bits) - 1) {}

    floats operator()(ints codes) const noexcept {
        ints const index = codes & mask_;
#if defined(__AVX512F__)
        return floats(gather(table_, index));
#elif defined(__AVX2__)
        return floats(_mm256_i32gather_ps(table_, index, 4));
#else
        alignas(64) std::int32_t indices[lanes];
        alignas(64) float numbers[lanes];
        index.store_aligned(indices);
        for (index_t l = 0; l < lanes; ++l) {
            numbers[l] = table_[indices[l]];
        }
        return floats::load_aligned(numbers);
#endif
    }

private:
    float const* table_;
    ints mask_;
};

#if defined(__AVX2__)
/// A table whose numbers are computed as they are floats with fewer bits: a sign, an exponent and a mantissa that make
/// up the code in this order, with subnormals.
class floating_numbers : public float_table {
public:
    static constexpr auto kind = table_kind::floating;
    static constexpr int fewest_bits = bits_in_memory;
    static constexpr int most_bits = 8;

    /// The bits of the mantissa if the table is of such numbers, else -1; numbers that are not finite do not count.
    static constexpr int mantissa_of(float const* table, int bits) noexcept {
        constexpr double largest = std::numeric_limits<float>::max();
        // A comparison in double, as constant expressions may not leave the range of float.
        auto const same = [](float number, double computed) {
            bool const finite = number >= -largest && number <= largest;
            bool const in_range = computed >= -largest && computed <= largest;
            return !finite || (in_range && number == static_cast<float>(computed));
        };
        int const half = 1 << (bits - 1);
        for (int mantissa = 0; mantissa < bits - 1; ++mantissa) {
            double const factor = double{table[1]} / subnormal(1, mantissa);
            bool found = factor > 0 && factor <= largest;
            for (int c = 0; c < half && found; ++c) {
                double const number = subnormal(c, mantissa) * factor;
                found = same(table[c], number) && same(table[half + c], -number);
            }
            if (found) {
                return mantissa;
            }
        }
        return -1;
    }

    /// The numbers of a table for which `mantissa_of` has found so many bits.
    floating_numbers(float const* table, int bits, int mantissa) noexcept
        : to_sign_(32 - bits), exponents_lacking_(9 + mantissa - bits),
          magnitude_and_sign_(static_cast<std::int32_t>(0x80000000U | ((1U << (bits - 1)) - 1) << (23 - mantissa))),
          factor_(table[1] / subnormal(1, mantissa)) {}

    floats operator()(ints codes) const noexcept {
        // The sign comes to its place, and is copied below it while the rest comes to its own.
        ints const placed = ((codes << to_sign_) >> exponents_lacking_) & magnitude_and_sign_;
        return std::bit_cast<floats>(placed) * factor_;
    }

    /// The table of number * scale, of use while this one lives; such numbers have no zero points.
    auto scaled(floats, floats scale) const noexcept {
        return [this, scale](ints codes) { return (*this)(codes) * scale; };
    }

private:
    /// The float whose exponent and mantissa are those of the code.
    static constexpr float subnormal(int code, int mantissa) noexcept {
        return std::bit_cast<float>(static_cast<std::uint32_t>(code) << (23 - mantissa));
    }

    ints to_sign_;
    ints exponents_lacking_; // bits of the exponent of a float that the code does not have
    ints magnitude_and_sign_;
    floats factor_;
};

/// A table whose numbers are computed, table[c] = table[0] + c.
class consecutive_numbers : public float_table {
public:
    static constexpr auto kind = table_kind::consecutive;
    static constexpr int fewest_bits = bits_in_memory;
    static constexpr int most_bits = 8;

    consecutive_numbers(float const* table, int bits) noexcept : first_(table[0]), mask_((1 << bits) - 1) {}

    floats operator()(ints codes) const noexcept { return number(codes, first_); }

    /// The table of (number - zero) * scale, of use while this one lives.
    auto scaled(floats zero, floats scale) const noexcept {
        return [this, first = first_ - zero, scale](ints codes) { return number(codes, first) * scale; };
    }

private:
    /// Code + first, where first is an integer.
    floats number(ints codes, floats first) const noexcept {
#if defined(__AVX512F__)
        // The float of 2^23 + code, in one step, as exact as the difference that follows.
        __m512i const bits = _mm512_ternarylogic_epi32(codes, mask_, _mm512_set1_epi32(0x4B000000), 0xEA);
        return floats(_mm512_castsi512_ps(bits)) - (8388608.0F - first);
#else
        return xsimd::to_float(codes & mask_) + first;
#endif
    }

    floats first_;
    ints mask_;
};
#endif

/// A kind of table, and for `table_kind::floating` the bits of the mantissa.
struct table_choice {
    table_kind kind;
    int mantissa = -1;
};

/// The fastest kind of table for so many bits; `consecutive` says that table[c] is table[0] + c, `has_zeros` that there
/// are zero points, which are integers.
constexpr table_choice fastest_table([[maybe_unused]] float const* table, [[maybe_unused]] int bits,
                                     [[maybe_unused]] bool consecutive, [[maybe_unused]] bool has_zeros) noexcept {
#if defined(__AVX512BW__) || (defined(__AVX2__) && !defined(__AVX512F__))
    if (bits <= table_in_register::most_bits) {
        return {table_kind::in_register};
    }
    if (bits <= table_in_two_registers::most_bits) {
        return {table_kind::in_two_registers};
    }
#endif
#if defined(__AVX2__)
    constexpr float no_fractions = 8388608; // floats from here on are integers
    bool const small = table[0] > -no_fractions && table[0] < no_fractions;
    if (consecutive && (!small || table[0] == static_cast<float>(static_cast<std::int32_t>(table[0])))) {
        return {table_kind::consecutive};
    }
    int const mantissa = has_zeros ? -1 : floating_numbers::mantissa_of(table, bits);
    if (mantissa >= 0) {
        return {table_kind::floating, mantissa};
    }
#endif
    return {table_kind::in_memory};
}

/// Calls `f(table)` with the fastest kind of table, as `fastest_table` says.
template <class F> void with_table(float const* table, int bits, bool consecutive, bool has_zeros, F const& f) {
    [[maybe_unused]] auto const fastest = fastest_table(table, bits, consecutive, has_zeros);
#if defined(__AVX512BW__) || (defined(__AVX2__) && !defined(__AVX512F__))
    if (fastest.kind == table_kind::in_register) {
        return f(table_in_register(table, bits));
    }
    if (fastest.kind == table_kind::in_two_registers) {
        return f(table_in_two_registers(table, bits));
    }
#endif
#if defined(__AVX2__)
    if (fastest.kind == table_kind::consecutive) {
        return f(consecutive_numbers(table, bits));
    }
    if (fastest.kind == table_kind::floating) {
        return f(floating_numbers(table, bits, fastest.mantissa));
    }
#endif
    f(table_in_memory(table, bits));
}

/// Eight consecutive codes of a little-endian bit stream in each lane, those of lane l from 8 l on, for the numbers of
/// bits that `Table` is for: in one part, or in two of four codes. The lowest bits of a part are those of the codes
/// that the table looks up first; `next_code` brings the others there.
template <class Table> class code_lanes {
public:
    static constexpr int parts = Table::most_bits <= 4 ? 1 : 2;
    static constexpr int steps_per_part = 8 / parts / Table::codes_per_step;

    /// The stream begins on a byte; 64 bytes from there on may be read, with 5 and more bits 128.
    code_lanes(std::uint8_t const* bytes, int bits) noexcept {
        if constexpr (Table::fewest_bits == 4 && Table::most_bits == 4) { // they are in place
            parts_[0] = ints::load_unaligned(reinterpret_cast<std::int32_t const*>(bytes));
            return;
        }
#if defined(__AVX512VBMI__)
        byte_places const& from = places[static_cast<std::size_t>(bits - 1)];
        if constexpr (parts == 1) {
            parts_[0] = ints(_mm512_permutexvar_epi8(_mm512_load_si512(from.first), _mm512_loadu_si512(bytes)));
        } else {
            __m512i const low = _mm512_loadu_si512(bytes);
            __m512i const high = _mm512_loadu_si512(bytes + 64);
            parts_[0] = ints(_mm512_permutex2var_epi8(low, _mm512_load_si512(from.first), high));
            parts_[1] = ints(_mm512_permutex2var_epi8(low, _mm512_load_si512(from.second), high)) >> (4 * bits % 8);
        }
#else
#if defined(__AVX512BW__) || (defined(__AVX2__) && !defined(__AVX512F__))
        if constexpr (parts == 1) { // `bits` words to each 128 bits, and `bits` bytes of them to each lane
            byte_places const& from = places[static_cast<std::size_t>(bits - 1)];
            __m128i const in_words = _mm_load_si128(reinterpret_cast<__m128i const*>(from.first));
#if defined(__AVX512F__)
            __m512i const words = _mm512_permutexvar_epi32(_mm512_load_si512(from.words), _mm512_loadu_si512(bytes));
            parts_[0] = ints(_mm512_shuffle_epi8(words, _mm512_broadcast_i32x4(in_words)));
#else
            __m256i const words =
                _mm256_permutevar8x32_epi32(_mm256_loadu_si256(reinterpret_cast<__m256i const*>(bytes)),
                                            _mm256_load_si256(reinterpret_cast<__m256i const*>(from.words)));
            parts_[0] = ints(_mm256_shuffle_epi8(words, _mm256_broadcastsi128_si256(in_words)));
#endif
            return;
        }
#endif
        alignas(64) std::int32_t words[array_size(parts)][lanes];
#pragma GCC unroll 16
        for (index_t l = 0; l < lanes; ++l) {
            std::memcpy(&words[0][l], bytes + l * bits, 4);
            if constexpr (parts == 2) {
                std::memcpy(&words[1][l], bytes + l * bits + bits / 2, 4);
            }
        }
        parts_[0] = ints::load_aligned(words[0]);
        if constexpr (parts == 2) {
            parts_[1] = ints::load_aligned(words[1]) >> (4 * bits % 8);
        }
#endif
    }

    ints const& part(int i) const noexcept { return parts_[i]; }

private:
    /// Where the bytes of each lane are, of the first part and of the second; and which words each 128 bits need.
    struct byte_places {
        alignas(64) std::uint8_t first[64];
        std::uint8_t second[64];
        std::int32_t words[16];
    };
    static constexpr std::array<byte_places, 8> places = [] { // for 1 to 8 bits
        std::array<byte_places, 8> result = {};
        for (int bits = 1; bits <= 8; ++bits) {
            byte_places& of_bits = result[static_cast<std::size_t>(bits - 1)];
            for (int i = 0; i < 64; ++i) {
                of_bits.first[i] = static_cast<std::uint8_t>(i / 4 * bits + i % 4);
                of_bits.second[i] = static_cast<std::uint8_t>(i / 4 * bits + i % 4 + bits / 2);
            }
            for (int i = 0; i < 16; ++i) {
                of_bits.words[i] = i / 4 * bits + i % 4;
            }
        }
        return result;
    }();

    ints parts_[array_size(parts)];
};

/// Brings the codes of each lane that are `bits` further to its lowest bits.
class next_code {
public:
    explicit next_code(int bits) noexcept : bits_(bits) {
#if defined(__AVX2__)
        alignas(64) std::int32_t volatile widths[lanes]; // or compilers shift by one number, which takes longer
        for (auto& width : widths) {
            width = bits;
        }
        std::memcpy(&widths_, const_cast<std::int32_t const*>(widths), sizeof widths_);
#endif
    }

    ints operator()(ints codes) const noexcept {
#if defined(__AVX512F__)
        return ints(_mm512_srlv_epi32(codes, widths_));
#elif defined(__AVX2__)
        return ints(_mm256_srlv_epi32(codes, widths_));
#else
        return codes >> bits_;
#endif
    }

private:
    [[maybe_unused]] int bits_;
#if defined(__AVX2__)
    ints widths_;
#endif
};

/// A register whose lane l is `from[index[l]]`, where `from` has `n` floats; every index is below both n and the number
/// of lanes.
inline floats pick(float const* from, index_t n, ints index) noexcept {
#if defined(__AVX512F__)
    auto const there = static_cast<__mmask16>(n < 16 ? (1U << n) - 1 : 0xFFFF);
    return floats(_mm512_permutexvar_ps(index, _mm512_maskz_loadu_ps(there, from)));
#elif defined(__AVX2__)
    __m256i const there = _mm256_cmpgt_epi32(_mm256_set1_epi32(n < 8 ? static_cast<int>(n) : 8),
                                             _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    return floats(_mm256_permutevar8x32_ps(_mm256_maskload_ps(from, there), index));
#else
    static_cast<void>(n);
    alignas(64) std::int32_t indices[lanes];
    alignas(64) float picked[lanes];
    index.store_aligned(indices);
    for (index_t l = 0; l < lanes; ++l) {
        picked[l] = from[indices[l]];
    }
    return floats::load_aligned(picked);
#endif
}

} // namespace detent::inline DETENT_ABI::simd

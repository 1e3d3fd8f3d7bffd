// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <limits>

#include "detent/core/error.hpp"
#include "detent/core/half.hpp"
#include "detent/grid/fp_grid.hpp"

namespace detent::inline DETENT_ABI {

/// The numbers that scales are stored as. Of 8 bits: E8M0, the powers of two from 2^-127 to 2^127 (OCP MX), and OCP's
/// E4M3 without zero, from 2^-9 to 448, in units of a float for the whole matrix (NVFP4).
enum class scale_kind { f16, bf16, f32, e8m0, ue4m3 };

/// How scales are stored.
struct scale_format {
    scale_kind kind = scale_kind::f16;
    float unit = 1; ///< the second level: what a stored 1 means, within `unit_limits`; 1 for all kinds but `ue4m3`

    constexpr scale_format() = default;
    constexpr scale_format(scale_kind stored_as, float level = 1) : kind(stored_as), unit(level) {}
    constexpr scale_format(float_format stored_as)
        : kind(stored_as == float_format::f16    ? scale_kind::f16
               : stored_as == float_format::bf16 ? scale_kind::bf16
                                                 : scale_kind::f32) {}

    /// Whether the unit is stored too, as a float.
    constexpr bool has_unit() const { return kind == scale_kind::ue4m3; }

    friend constexpr bool operator==(scale_format, scale_format) = default;
};

/// The units that keep all E4M3 scales normal and finite floats.
struct unit_limits {
    static constexpr float lowest = 0x1p-117F;
    static constexpr float highest = 0x1p119F;
};

/// @throws error where scales cannot have the unit of `format`.
inline void expect_unit(scale_format format) {
    bool const fits = format.has_unit() ? format.unit >= unit_limits::lowest && format.unit <= unit_limits::highest
                                        : format.unit == 1;
    expect_option(fits, "scale format", "unit", format.unit,
                  format.has_unit() ? "from 2^-117 to 2^119" : "1, as only that of E4M3 may be another");
}

/// The number of bits of one stored scale, without the unit that a matrix has once.
constexpr int bits_of(scale_format format) {
    switch (format.kind) {
    case scale_kind::f16:
    case scale_kind::bf16:
        return 16;
    case scale_kind::f32:
        return 32;
    case scale_kind::e8m0:
    case scale_kind::ue4m3:
        break;
    }
    return 8;
}

/// The stored 8 bits of a scale that is exact in `format`, `e8m0` or `ue4m3`.
inline std::uint8_t byte_of(scale_format format, float scale) {
    if (format.kind == scale_kind::e8m0) {
        return static_cast<std::uint8_t>(std::bit_cast<std::uint32_t>(scale) >> 23); // 0 for the subnormal 2^-127
    }
    return e4m3::encode(scale / format.unit);
}

/// The scale that 8 stored bits mean in `format`, `e8m0` or `ue4m3`; NaN where they mean none: E8M0's 255, and E4M3's
/// NaN, zeros and negative numbers.
inline float scale_of(scale_format format, std::uint8_t byte) {
    constexpr float none = std::numeric_limits<float>::quiet_NaN();
    if (format.kind == scale_kind::e8m0) {
        return byte == 255 ? none : byte == 0 ? 0x1p-127F : std::bit_cast<float>(std::uint32_t{byte} << 23);
    }
    float const number = e4m3::decode(byte);
    return number > 0 ? number * format.unit : none;
}

/// The smallest and the largest scale of a format.
struct scale_limits {
    float smallest = 0;
    float largest = 0;
};

/// The limits of `format`, its unit included. Those of bfloat16 and f32 are normal numbers: machines that flush
/// subnormal floats to 0 would lose the tile. Those of f16 and E4M3 include subnormal ones, which are normal as floats.
constexpr scale_limits limits_of(scale_format format) {
    switch (format.kind) {
    case scale_kind::f16:
        return {0x1p-24F, 65504.0F};
    case scale_kind::bf16:
        return {0x1p-126F, 0x1.FEp127F};
    case scale_kind::f32:
        break;
    case scale_kind::e8m0:
        return {0x1p-127F, 0x1p127F};
    case scale_kind::ue4m3:
        return {0x1p-9F * format.unit, e4m3::highest() * format.unit};
    }
    return {std::numeric_limits<float>::min(), std::numeric_limits<float>::max()};
}

/// `scale` as `format` stores it: scales are rounded before a solver uses them, so that the codes match the scale they
/// will be decoded with. Rounds to nearest, but E8M0 up to a power of two, so that what fitted below the largest number
/// still fits; for OCP's rule see `scale_over`. It stays within the limits of the format: a scale that became zero or
/// infinite would lose its tile.
inline float store(scale_format format, float scale) {
    scale_limits const limits = limits_of(format);
    scale = std::clamp(scale, limits.smallest, limits.largest);
    switch (format.kind) {
    case scale_kind::f16:
        return static_cast<float>(half{scale});
    case scale_kind::bf16:
        return static_cast<float>(bfloat16{scale});
    case scale_kind::f32:
        break;
    case scale_kind::e8m0: { // a mantissa other than 0 carries into the exponent
        auto const bits = std::bit_cast<std::uint32_t>(scale);
        return bits <= 0x00400000U ? 0x1p-127F : std::bit_cast<float>((bits + 0x007FFFFFU) & 0x7F800000U);
    }
    case scale_kind::ue4m3:
        return e4m3::decode(e4m3::encode(scale / format.unit)) * format.unit;
    }
    return scale;
}

} // namespace detent::inline DETENT_ABI

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <optional>

#include "detent/core/finite.hpp"
#include "detent/core/index.hpp"
#include "detent/matrix/packed_view.hpp"
#include "detent/matrix/quantized_activations.hpp"
#include "detent/simd/integer_dot.hpp"

namespace detent::inline DETENT_ABI::kernel {

/// The numbers of a table as integers times a power of two: code c stands for `integers[c] * 2^-exponent`.
struct integer_table {
    std::array<std::int32_t, 256> integers{}; ///< of codes that name no number, `lowest`
    int exponent = 0;
    std::int32_t lowest = 0;
    std::int32_t highest = 0;

    friend bool operator==(integer_table const&, integer_table const&) = default;
};

/// The 2^bits numbers of a grid as integers, if these are within +-65535; with the smallest exponent, but for grids
/// with zero points, which are integers themselves, at least 0.
constexpr std::optional<integer_table> integers_of(float const* table, int bits, bool has_zeros) {
    auto const codes = index_t{1} << bits;
    int exponent = has_zeros ? 0 : std::numeric_limits<int>::min();
    for (index_t c = 0; c < codes; ++c) {
        if (!is_finite(table[c]) && !is_nan(table[c])) {
            return {};
        }
        if (table[c] != 0 && !is_nan(table[c])) {
            auto const bits_of_number = std::bit_cast<std::uint32_t>(table[c]);
            auto const field = static_cast<int>(bits_of_number >> 23 & 0xFF);
            std::uint32_t const mantissa = (bits_of_number & 0x7FFFFF) | (field > 0 ? 0x800000 : 0);
            exponent = std::max(exponent, 150 - std::max(field, 1) - std::countr_zero(mantissa));
        }
    }
    integer_table t{.exponent = exponent == std::numeric_limits<int>::min() ? 0 : exponent, // nothing but zeros
                    .lowest = std::numeric_limits<std::int32_t>::max(),
                    .highest = std::numeric_limits<std::int32_t>::min()};
    // 2^exponent: constant expressions have no std::ldexp.
    auto const unit = std::bit_cast<double>(static_cast<std::uint64_t>(1023 + t.exponent) << 52);
    for (index_t c = 0; c < codes; ++c) {
        if (!is_nan(table[c])) {
            double const integer = table[c] * unit;
            if (integer < -65535 || integer > 65535) {
                return {};
            }
            t.lowest = std::min(t.lowest, static_cast<std::int32_t>(integer));
            t.highest = std::max(t.highest, static_cast<std::int32_t>(integer));
        }
    }
    if (t.lowest > t.highest) {
        return {};
    }
    for (index_t c = 0; c < codes; ++c) {
        t.integers[static_cast<std::size_t>(c)] =
            is_nan(table[c]) ? t.lowest : static_cast<std::int32_t>(table[c] * unit);
    }
    return t;
}

/// How weights and activations are stored for a product on integers: each as bytes or as int16, from which the integer
/// meant differs by a constant. A weight is
///     (stored + weight_base - zero 2^weights.exponent) 2^-weights.exponent scale,
/// an activation
///     (stored + base of its token) 2^-(activations.exponent + shift) scale,
/// `stored` having been multiplied by 2^(shift - the shift of its feature).
struct integer_form {
    integer_table weights = {};
    integer_table activations = {};
    std::int32_t weight_base = 0;
    bool zeros_apart = false;         ///< whether the base of a token is `activation_base` less its zero point, else 0
    std::int32_t activation_base = 0;
    int shift = 0;                    ///< the largest of any feature
    index_t longest_run = 0;          ///< how many terms a sum may have without leaving int32
};

/// The form with stored integers of type T, if there is one. It takes weights' zero points to be integers of 0 to 255.
template <simd::SmallInteger T>
std::optional<integer_form> integer_form_of(packed_view const& w, activation_view const& x) {
    using limits = std::numeric_limits<T>;
    float least_zero = x.scales.empty() ? 0 : x.scales.front().zero;
    float largest_zero = least_zero;
    for (tile_scale const s : x.scales) {
        if (!(std::abs(s.zero) <= 255) || s.zero != std::nearbyint(s.zero)) {
            return {};
        }
        least_zero = std::min(least_zero, s.zero);
        largest_zero = std::max(largest_zero, s.zero);
    }
    auto const weights = integers_of(w.table, w.bits, w.zeros != nullptr);
    auto const activations = integers_of(x.table.data(), x.bits, least_zero != 0 || largest_zero != 0);
    if (!weights || !activations) {
        return {};
    }
    integer_form form{.weights = *weights, .activations = *activations};

    if constexpr (sizeof(T) == 1) {
        if (weights->highest - weights->lowest > 255) {
            return {};
        }
        form.weight_base = weights->lowest - simd::lowest_weight_byte;
    } else if (weights->lowest < limits::min() || weights->highest > limits::max()) {
        return {};
    }

    int least_shift = 0;
    if (!x.shifts.empty()) {
        auto const [least, largest] = std::minmax_element(x.shifts.begin(), x.shifts.end());
        least_shift = *least;
        form.shift = *largest;
    }
    auto const times = std::int64_t{1} << (form.shift - least_shift);
    auto const integer = [&](float zero) {
        return static_cast<std::int64_t>(std::ldexp(double{zero}, activations->exponent));
    };
    std::int64_t low = activations->lowest - integer(largest_zero);
    std::int64_t high = activations->highest - integer(least_zero);
    low = std::min(low, low * times);
    high = std::max(high, high * times);
    if (low < limits::min() || high > limits::max()) {
        if (sizeof(T) > 1 || times > 1 || activations->highest - activations->lowest > 255) {
            return {};
        }
        form.zeros_apart = true;
        form.activation_base = activations->lowest - limits::min();
    }

    double const weight_zero = w.zeros != nullptr ? std::ldexp(255.0, weights->exponent) : 0;
    double const largest_weight = std::max(std::abs(weights->lowest - weight_zero), std::abs(weights->highest + 0.0));
    auto const largest_activation = static_cast<double>(std::max(std::abs(low), std::abs(high)));
    form.longest_run = static_cast<index_t>(2147483647 / std::max(1.0, largest_weight * largest_activation));
    if (form.longest_run < 16) { // adding up the runs would take as long as the product
        return {};
    }
    return form;
}

/// Calls `f(form, T{})` with the form in which a product is fastest, T its stored integers, and answers whether there
/// is one.
template <class F> bool with_integer_form(packed_view const& w, activation_view const& x, F const& f) {
    if constexpr (simd::has_byte_dot) {
        if (auto const form = integer_form_of<std::int8_t>(w, x)) {
            f(*form, std::int8_t{});
            return true;
        }
    }
    auto const form = integer_form_of<std::int16_t>(w, x);
    if (form) {
        f(*form, std::int16_t{});
    }
    return form.has_value();
}

} // namespace detent::inline DETENT_ABI::kernel

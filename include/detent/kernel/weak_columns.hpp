// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "detent/core/half.hpp"
#include "detent/core/index.hpp"
#include "detent/kernel/floats.hpp"
#include "detent/matrix/weak_columns.hpp"
#include "detent/simd/half.hpp"

namespace detent::inline DETENT_ABI::kernel {

/// Number `i` of weak columns.
template <float_format Format> float weak_number(std::uint8_t const* numbers, index_t i) noexcept {
    auto const read = [=]<class T>(T number) {
        std::memcpy(&number, numbers + i * static_cast<index_t>(sizeof number), sizeof number);
        return number;
    };
    if constexpr (Format == float_format::f16) {
        return simd::to_float(read(half{}));
    } else if constexpr (Format == float_format::bf16) {
        return static_cast<float>(read(bfloat16{}));
    } else {
        return read(float{});
    }
}

/// Writes the numbers at `row` of the weak columns among the stored columns [begin, begin + n) to their places in
/// `out`.
inline void put_weak(weak_view const& w, index_t row, index_t begin, index_t n, float* out) noexcept {
    index_t k = w.first_from(begin);
    auto const put = [&]<float_format Format> {
        for (; k < w.count && w.columns[k] < begin + n; ++k) {
            out[w.columns[k] - begin] = weak_number<Format>(w.values, k * w.rows + row);
        }
    };
    switch (w.format) {
    case float_format::f16:
        return put.template operator()<float_format::f16>();
    case float_format::bf16:
        return put.template operator()<float_format::bf16>();
    case float_format::f32:
        return put.template operator()<float_format::f32>();
    }
}

/// As many numbers of a weak column as a register has floats.
template <float_format Format> floats load_weak(std::uint8_t const* numbers) noexcept {
    if constexpr (Format == float_format::f16) {
        return simd::load_halves(numbers);
    } else if constexpr (Format == float_format::bf16) {
        return simd::load_bfloats(numbers);
    } else {
        return floats::load_unaligned(reinterpret_cast<float const*>(numbers));
    }
}

/// The first `n` of them, zeros after; reads no more.
template <float_format Format> floats load_weak(std::uint8_t const* numbers, index_t n) noexcept {
    if (n >= lanes) {
        return load_weak<Format>(numbers);
    }
    alignas(64) std::uint8_t copy[array_size(lanes * bits_of(Format) / 8)] = {};
    std::memcpy(copy, numbers, static_cast<std::size_t>(n * bits_of(Format) / 8));
    return load_weak<Format>(copy);
}

/// Writes `n` numbers as floats.
template <float_format Format> void to_floats(std::uint8_t const* from, index_t n, float* to) noexcept {
    index_t k = 0;
    for (; k + lanes <= n; k += lanes) {
        load_weak<Format>(from + k * bits_of(Format) / 8).store_unaligned(to + k);
    }
    for (; k < n; ++k) {
        to[k] = weak_number<Format>(from, k);
    }
}

/// Writes `n` numbers of a format known at run time as floats.
inline void to_floats(float_format format, std::uint8_t const* from, index_t n, float* to) noexcept {
    switch (format) {
    case float_format::f16:
        return to_floats<float_format::f16>(from, n, to);
    case float_format::bf16:
        return to_floats<float_format::bf16>(from, n, to);
    case float_format::f32:
        return to_floats<float_format::f32>(from, n, to);
    }
}

/// y[row + i] += what the weak columns add, for i < `count`, which needs at most `Registers` registers.
template <float_format Format, int Registers>
void add_weak_rows(weak_view const& w, index_t row, index_t count, float const* x, float* y) noexcept {
    constexpr index_t width = bits_of(Format) / 8;
    floats sums[array_size(Registers)];
    std::fill(sums, sums + Registers, floats(0.0F));
    for (index_t k = 0; k < w.count; ++k) {
        floats const input(x[w.columns[k]]);
        std::uint8_t const* const numbers = w.values + (k * w.rows + row) * width;
        for (int r = 0; r < Registers; ++r) {
            sums[r] = xsimd::fma(input, load_weak<Format>(numbers + r * lanes * width, count - r * lanes), sums[r]);
        }
    }
    for (int r = 0; r < Registers; ++r) {
        if ((r + 1) * lanes <= count) {
            (floats::load_unaligned(y + row + r * lanes) + sums[r]).store_unaligned(y + row + r * lanes);
            continue;
        }
        alignas(64) float rest[lanes];
        sums[r].store_aligned(rest);
        for (index_t i = r * lanes; i < count; ++i) {
            y[row + i] += rest[i - r * lanes];
        }
    }
}

/// y[row] += sum over the weak columns of their number at `row` times their input, for rows [first, last) and one input
/// x in stored order. A row's bits do not depend on which rows it is added with.
template <float_format Format>
void add_weak(weak_view const& w, index_t first, index_t last, float const* x, float* y) noexcept {
    constexpr int registers = 4; // sums that do not wait for each other
    index_t row = first;
    for (; row + registers * lanes <= last; row += registers * lanes) {
        add_weak_rows<Format, registers>(w, row, registers * lanes, x, y);
    }
    for (; row < last; row += lanes) {
        add_weak_rows<Format, 1>(w, row, std::min(lanes, last - row), x, y);
    }
}

/// `add_weak` where the format is known at run time.
inline void add_weak(weak_view const& w, index_t first, index_t last, float const* x, float* y) noexcept {
    switch (w.format) {
    case float_format::f16:
        return add_weak<float_format::f16>(w, first, last, x, y);
    case float_format::bf16:
        return add_weak<float_format::bf16>(w, first, last, x, y);
    case float_format::f32:
        return add_weak<float_format::f32>(w, first, last, x, y);
    }
}

} // namespace detent::inline DETENT_ABI::kernel

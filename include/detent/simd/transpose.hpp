// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "detent/core/index.hpp"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace detent::inline DETENT_ABI::simd {

/// A register of 16 bytes as numbers of type `T`. It is a vector type of the compiler, so that the same code becomes
/// instructions on every processor that has such registers and plain code on others.
template <class T> struct register16 {
    typedef T type __attribute__((vector_size(16)));

    static type load(std::uint8_t const* bytes) noexcept {
        type v;
        std::memcpy(&v, bytes, 16);
        return v;
    }
    static void store(type v, std::uint8_t* bytes) noexcept { std::memcpy(bytes, &v, 16); }

    /// The first halves of `a` and `b` in turns: a0, b0, a1, b1, ...
    static type zip_first(type a, type b) noexcept {
        if constexpr (sizeof(T) == 1) {
            return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
        } else if constexpr (sizeof(T) == 4) {
            return __builtin_shufflevector(a, b, 0, 4, 1, 5);
        } else {
            static_assert(sizeof(T) == 8);
            return __builtin_shufflevector(a, b, 0, 2);
        }
    }
    /// The second halves of `a` and `b` in turns.
    static type zip_second(type a, type b) noexcept {
        if constexpr (sizeof(T) == 1) {
            return __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
        } else if constexpr (sizeof(T) == 4) {
            return __builtin_shufflevector(a, b, 2, 6, 3, 7);
        } else {
            static_assert(sizeof(T) == 8);
            return __builtin_shufflevector(a, b, 1, 3);
        }
    }
};

/// Transposes a square of 16 / sizeof(T) numbers a side, whose rows are registers. Strides are bytes between rows.
template <class T>
[[gnu::always_inline]] inline void transpose_square(std::uint8_t const* from, index_t from_stride, std::uint8_t* to,
                                                    index_t to_stride) noexcept {
    using registers = register16<T>;
    constexpr int n = 16 / sizeof(T);
    typename registers::type v[array_size(n)];
    typename registers::type next[array_size(n)];
#pragma GCC unroll 16
    for (int i = 0; i < n; ++i) {
        v[i] = registers::load(from + i * from_stride);
    }
    // Zipping the two halves of all numbers rotates the bits of their positions by one; log2(n) times swaps row and
    // column.
#pragma GCC unroll 4
    for (int round = 1; round < n; round *= 2) {
#pragma GCC unroll 8
        for (int i = 0; i < n / 2; ++i) {
            next[2 * i] = registers::zip_first(v[i], v[i + n / 2]);
            next[2 * i + 1] = registers::zip_second(v[i], v[i + n / 2]);
        }
#pragma GCC unroll 16
        for (int i = 0; i < n; ++i) {
            v[i] = next[i];
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < n; ++i) {
        registers::store(v[i], to + i * to_stride);
    }
}

/// Where bytes should go that are written once.
enum class destination {
    cache, ///< they are read soon
    memory ///< past the caches where that is possible, which saves reading the lines that are overwritten
};

/// Whether `bytes` is a multiple of `n` bytes from address 0.
inline bool is_aligned(std::uint8_t const* bytes, std::uintptr_t n) noexcept {
    return reinterpret_cast<std::uintptr_t>(bytes) % n == 0;
}

/// Copies a cache line to `to`, at a multiple of 64 bytes, past the caches.
inline void stream_line(std::uint8_t const* from, std::uint8_t* to) noexcept {
#if defined(__SSE2__)
#pragma GCC unroll 4
    for (int i = 0; i < 64; i += 16) {
        _mm_stream_si128(reinterpret_cast<__m128i*>(to + i),
                         _mm_load_si128(reinterpret_cast<__m128i const*>(from + i)));
    }
#else
    std::memcpy(to, from, 64);
#endif
}

/// Makes lines that were streamed visible to other threads like any other bytes that this thread writes.
inline void end_stream() noexcept {
#if defined(__SSE2__)
    _mm_sfence();
#endif
}

/// Writes transposes of matrices whose numbers of type `T` are bytes at any alignment. Strides are bytes between rows.
template <class T> class transposer {
public:
    transposer(std::uint8_t const* from, index_t from_stride, std::uint8_t* to, index_t to_stride) noexcept
        : from_(from), from_stride_(from_stride), to_(to), to_stride_(to_stride) {}

    /// The part of `shape` from `row` and `col` on, past the caches as far as whole lines are written.
    void stream(index_t row, index_t col, extents shape) const noexcept {
        auto const place = reinterpret_cast<std::uintptr_t>(to_ + row * size);
        if (to_stride_ % 64 != 0 || place % sizeof(T) != 0) {
            return copy(row, col, shape);
        }
        index_t const before = std::min(shape.rows, static_cast<index_t>((64 - place % 64) % 64 / sizeof(T)));
        index_t const end = row + before + (shape.rows - before) / line * line;
        index_t const cols = shape.cols / line * line;
        copy(row, col, {before, shape.cols});
        // Some lines beside each other at a time: memory is slower where it jumps for every line.
        for (index_t c = col; c < col + cols; c += panel) {
            for (index_t r = row + before; r < end; r += line) {
                for (index_t i = c; i < std::min(c + panel, col + cols); i += line) {
                    stream_lines(r, i);
                }
            }
        }
        copy(row + before, col + cols, {end - row - before, shape.cols - cols});
        copy(end, col, {row + shape.rows - end, shape.cols});
    }

    /// The part of `shape` from `row` and `col` on. It goes by squares that are a cache line wide on both sides, so
    /// that distances that are a power of two evict no line before it is used up.
    void copy(index_t row, index_t col, extents shape) const noexcept {
        index_t const last_row = row + shape.rows / step * step;
        index_t const last_col = col + shape.cols / step * step;
        for (index_t r = row; r < last_row; r += line) {
            for (index_t c = col; c < last_col; c += line) {
                for (index_t i = r; i < std::min(r + line, last_row); i += step) {
                    for (index_t j = c; j < std::min(c + line, last_col); j += step) {
                        transpose_square<T>(source(i, j), from_stride_, target(i, j), to_stride_);
                    }
                }
            }
        }
        one_by_one(row, last_col, last_row, col + shape.cols);
        one_by_one(last_row, col, row + shape.rows, col + shape.cols);
    }

private:
    static constexpr index_t size = sizeof(T);
    static constexpr index_t step = 16 / size; // numbers of a register
    static constexpr index_t line = 64 / size; // numbers of a cache line
    static constexpr index_t panel = 4 * line;

    std::uint8_t const* source(index_t row, index_t col) const noexcept {
        return from_ + row * from_stride_ + col * size;
    }
    std::uint8_t* target(index_t row, index_t col) const noexcept { return to_ + col * to_stride_ + row * size; }

    /// A cache line of numbers in both directions.
    void stream_lines(index_t row, index_t col) const noexcept {
        alignas(64) std::uint8_t lines[array_size(line * 64)];
        for (index_t i = 0; i < line; i += step) {
            for (index_t j = 0; j < line; j += step) {
                transpose_square<T>(source(row + i, col + j), from_stride_, lines + j * 64 + i * size, 64);
            }
        }
        for (index_t i = 0; i < line; ++i) {
            __builtin_prefetch(source(row + i, col + line)); // may be past the end: no harm is done
        }
        for (index_t j = 0; j < line; ++j) {
            stream_line(lines + j * 64, target(row, col + j));
        }
    }

    void one_by_one(index_t row, index_t col, index_t last_row, index_t last_col) const noexcept {
        for (index_t i = row; i < last_row; ++i) {
            for (index_t j = col; j < last_col; ++j) {
                std::memcpy(target(i, j), source(i, j), sizeof(T));
            }
        }
    }

    std::uint8_t const* from_;
    index_t from_stride_;
    std::uint8_t* to_;
    index_t to_stride_;
};

/// Writes the transpose of a matrix of `shape`, whose numbers of type `T` are bytes at any alignment, to a matrix of
/// `shape.cols` rows. Strides are bytes between rows; the matrices do not overlap. What goes to memory is visible to
/// other threads after `end_stream`.
template <class T>
void transpose(std::uint8_t const* from, index_t from_stride, extents shape, std::uint8_t* to, index_t to_stride,
               destination where) noexcept {
    transposer<T> const t(from, from_stride, to, to_stride);
    where == destination::memory ? t.stream(0, 0, shape) : t.copy(0, 0, shape);
}

} // namespace detent::inline DETENT_ABI::simd

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>

#include <xsimd/xsimd.hpp>

#include "detent/core/index.hpp"

namespace detent::inline DETENT_ABI::simd {

/// A matrix read through two strides, so that its transpose is no copy: element (i, j) is
/// `data[i * row_stride + j * col_stride]`.
template <class T> struct strided {
    T const* data;
    index_t row_stride;
    index_t col_stride = 1;

    T const* at(index_t i, index_t j) const { return data + i * row_stride + j * col_stride; }
    strided block(index_t i, index_t j) const { return {at(i, j), row_stride, col_stride}; }
    strided transpose() const { return {data, col_stride, row_stride}; }
};

/// Which elements of a product are added: all, or those on and above the diagonal. Some below it may be too.
enum class part { all, upper };

/// Adds products of dense matrices, C += factor A B, at nearly the rate of the machine's multiply-adds. A and B are
/// copied in the order in which they are read, block by block, to memory that each thread keeps.
///
/// Every element of C receives, for each 256 terms, their sum taken in order. So its bits depend neither on the shape
/// of the product it is part of nor on how C is cut into pieces for threads. `Sum` is the type of C; with T = float and
/// Sum = double, runs of 256 terms are summed in float and these sums in double.
template <class T, class Sum = T> class products {
public:
    /// C (m, n) += factor * A (m, k) * B (k, n); row i of C begins at `c + i * c_stride`. A factor other than 1 and -1
    /// may round at other places in other pieces.
    static void add(index_t m, index_t n, index_t k, T factor, strided<T> a, strided<T> b, Sum* c, index_t c_stride,
                    part wanted = part::all) {
        thread_local workspace copied_a(most_rows * depth);
        thread_local workspace copied_b(most_cols * depth);
        T* const a_panels = copied_a.get();
        T* const b_panels = copied_b.get();
        for (index_t j = 0; j < n; j += most_cols) {
            index_t const width = std::min(most_cols, n - j);
            for (index_t p = 0; p < k; p += depth) {
                index_t const terms = std::min(depth, k - p);
                copy_panels<cols>(width, terms, b.block(p, j).transpose(), b_panels);
                for (index_t i = 0; i < m && !(wanted == part::upper && i >= j + width); i += most_rows) {
                    index_t const height = std::min(most_rows, m - i);
                    copy_panels<rows>(height, terms, a.block(i, p), a_panels);
                    add_block(height, width, terms, factor, a_panels, b_panels, c + i * c_stride + j, c_stride,
                              wanted == part::upper ? i - j : -m);
                }
            }
        }
    }

private:
    using batch = xsimd::batch<T>;
    static constexpr index_t lanes = static_cast<index_t>(batch::size);
    // Sums fill most registers, of which there are 32 or 16: two columns of registers, so many rows.
#if defined(__AVX512F__) || defined(__aarch64__)
    static constexpr index_t rows = 12;
#else
    static constexpr index_t rows = 6;
#endif
    static constexpr index_t cols = 2 * lanes;
    static constexpr index_t depth = 256;            ///< terms of a sum; a panel of B then fits the first-level cache,
    static constexpr index_t most_rows = 16 * rows;  ///< this much of A the second,
    static constexpr index_t most_cols = 64 * lanes; ///< and this much of B the third

    /// Memory aligned for vectors.
    struct release {
        void operator()(T* p) const { ::operator delete(p, std::align_val_t{64}); }
    };
    struct workspace : std::unique_ptr<T, release> {
        explicit workspace(index_t size)
            : std::unique_ptr<T, release>(static_cast<T*>(
                  ::operator new(static_cast<std::size_t>(size) * sizeof(T), std::align_val_t{64}))) {}
    };

    /// Copies `from` (n, k) as panels of `Width` rows, each (k, Width); missing rows become 0.
    template <index_t Width> static void copy_panels(index_t n, index_t k, strided<T> from, T* to) {
        index_t const whole = n / Width * Width;
        if (whole < n) {
            std::fill_n(to + whole * k, Width * k, T{0});
        }
        if (from.row_stride == 1) { // read along the rows of its transpose
            for (index_t p = 0; p < k; ++p) {
                T const* const source = from.at(0, p);
                for (index_t i = 0; i < whole; i += Width) {
                    __builtin_prefetch(source + i + 4 * from.col_stride); // which the hardware does not expect
                    copy<Width>(source + i, to + i * k + p * Width);
                }
                std::copy_n(source + whole, n - whole, to + whole * k + p * Width);
            }
        } else {
            // A cache line of one row after the other: rows whose distance is a power of two share few places there.
            constexpr index_t run = 16;
            for (index_t panel = 0; panel < n; panel += Width) {
                index_t const rows_left = std::min(Width, n - panel);
                for (index_t p = 0; p < k; p += run) {
                    for (index_t r = 0; r < rows_left; ++r) {
                        T const* const source = from.at(panel + r, p);
                        T* const target = to + panel * k + p * Width + r;
                        index_t const terms = std::min(run, k - p);
                        for (index_t q = 0; q < terms; ++q) {
                            target[q * Width] = source[q * from.col_stride];
                        }
                    }
                }
            }
        }
    }

    /// A loop rather than std::copy_n, which becomes a call.
    template <index_t Width> static void copy(T const* __restrict from, T* __restrict to) {
        for (index_t r = 0; r < Width; ++r) {
            to[r] = from[r];
        }
    }

    /// C (m, n) += factor A B for the copied A (m, k) and B (k, n), but for tiles where all (i, j) have i + below > j.
    static void add_block(index_t m, index_t n, index_t k, T factor, T const* a, T const* b, Sum* c, index_t c_stride,
                          index_t below) {
        for (index_t j = 0; j < n; j += cols) {
            for (index_t i = 0; i < m; i += rows) {
                if (i + below < j + cols) {
                    add_tile(std::min(rows, m - i), std::min(cols, n - j), k, factor, a + i * k, b + j * k,
                             c + i * c_stride + j, c_stride,
                             std::make_integer_sequence<int, static_cast<int>(rows)>{});
                }
            }
        }
    }

    /// The same for one panel of each, whose sums stay in registers.
    template <int... Row>
    static void add_tile(index_t m, index_t n, index_t k, T factor, T const* a, T const* b, Sum* c, index_t c_stride,
                         std::integer_sequence<int, Row...>) {
        batch low[] = {(static_cast<void>(Row), batch(T{0}))...};
        batch high[] = {(static_cast<void>(Row), batch(T{0}))...};
        if (m == rows) { // C comes from afar: let it come meanwhile
            ((__builtin_prefetch(c + Row * c_stride, 1), __builtin_prefetch(c + Row * c_stride + n - 1, 1)), ...);
        }
        for (index_t p = 0; p < k; ++p, a += rows, b += cols) {
            batch const b_low = batch::load_aligned(b);
            batch const b_high = batch::load_aligned(b + lanes);
            ((low[Row] = xsimd::fma(batch(a[Row]), b_low, low[Row]),
              high[Row] = xsimd::fma(batch(a[Row]), b_high, high[Row])),
             ...);
        }
        batch const times(factor);
        ((low[Row] = times * low[Row], high[Row] = times * high[Row]), ...);
        if constexpr (std::is_same_v<T, Sum>) {
            if (m == rows && n == cols) {
                ((add_to(c + Row * c_stride, low[Row]), add_to(c + Row * c_stride + lanes, high[Row])), ...);
                return;
            }
        }
        alignas(64) T sums[static_cast<std::size_t>(rows * cols)];
        ((low[Row].store_aligned(sums + Row * cols), high[Row].store_aligned(sums + Row * cols + lanes)), ...);
        for (index_t i = 0; i < m; ++i) {
            for (index_t j = 0; j < n; ++j) {
                c[i * c_stride + j] += static_cast<Sum>(sums[i * cols + j]);
            }
        }
    }

    static void add_to(T* c, batch x) { (batch::load_unaligned(c) + x).store_unaligned(c); }
};

} // namespace detent::inline DETENT_ABI::simd

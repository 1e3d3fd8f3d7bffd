// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstdint>
#include <type_traits>

// How dense products of the target detent::kernels and their callers meet, as kernel/compiled.hpp has it for packed
// ones: nothing here depends on compile flags, so it is outside of the inline namespace that does.

namespace detent::compiled {

/// `simd::products<T, Sum>::add`, with the strides of A and of B behind them; `upper` where only what is on and above
/// the diagonal is wanted.
template <class T, class Sum>
using add_product = void (*)(std::int64_t m, std::int64_t n, std::int64_t k, T factor, T const* a,
                             std::int64_t a_row_stride, std::int64_t a_col_stride, T const* b,
                             std::int64_t b_row_stride, std::int64_t b_col_stride, Sum* c, std::int64_t c_stride,
                             bool upper);

/// Dense products of one instruction set.
struct dense_products {
    static constexpr std::uint32_t newest = 1; ///< to be counted up when a member or its meaning changes

    std::uint32_t version; ///< `newest` when they were compiled; stays the first
    add_product<float, float> floats;
    add_product<double, double> doubles;
    add_product<float, double> floats_in_doubles;

    template <class T, class Sum> add_product<T, Sum> of() const {
        if constexpr (std::is_same_v<T, double>) {
            return doubles;
        } else if constexpr (std::is_same_v<Sum, double>) {
            return floats_in_doubles;
        } else {
            return floats;
        }
    }
};

/// Those of the unit that `chosen` in kernel/compiled.hpp gives; throws std::runtime_error like it, and if
/// detent::kernels was compiled from headers with another `version` than the caller's.
dense_products const& chosen_products(std::uint32_t version = dense_products::newest);

} // namespace detent::compiled

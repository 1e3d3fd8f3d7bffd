// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <concepts>
#include <type_traits>

#include "quantizer/type_matrix.hpp"

// That all cells of the matrix that make sense are types that compile.

namespace detent::test {

/// A quantizer of these parts exists, where the range serves the grid and wrappers fit together; it has no other answer
/// than the packed matrix of its grid and granularity.
template <class G, class P, class R, class S, class Outer, class Inner> constexpr bool cell_makes_sense() {
    if constexpr (serves<R, G> && fit_together<Outer, Inner>) {
        using q = typename cell<G, P, R, S, Outer, Inner>::type;
        return std::same_as<typename q::result, quantized_matrix<G, P>> &&
               std::same_as<typename q::evidence, typename decltype(q::solver)::evidence>;
    }
    return true;
}

template <class... Ts, class F> constexpr bool all_of(type_list<Ts...>, F f) {
    return (f(std::type_identity<Ts>{}) && ...);
}

/// All granularities, ranges, solvers and wrappers with one grid.
template <class G> constexpr bool row_makes_sense() {
    return all_of(all_granularities{}, []<class P>(std::type_identity<P>) {
        return all_of(all_ranges{}, []<class R>(std::type_identity<R>) {
            return all_of(all_solvers{}, []<class S>(std::type_identity<S>) {
                return all_of(all_wrappers{}, []<class Outer>(std::type_identity<Outer>) {
                    return all_of(all_wrappers{}, []<class Inner>(std::type_identity<Inner>) {
                        return cell_makes_sense<G, P, R, S, Outer, Inner>();
                    });
                });
            });
        });
    });
}

} // namespace detent::test

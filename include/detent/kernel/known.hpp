// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <type_traits>

#include "detent/core/contract.hpp"
#include "detent/core/index.hpp"
#include "detent/granularity/granularity.hpp"
#include "detent/grid/grid.hpp"
#include "detent/kernel/integer_form.hpp"
#include "detent/matrix/input_format.hpp"
#include "detent/matrix/packed_view.hpp"
#include "detent/pack/linear.hpp"
#include "detent/simd/code_lanes.hpp"

// What a program knows of a product when it is compiled. The products take it as the template parameter `Known`, leave
// out every kernel that it excludes, and choose among the others at run time.

namespace detent::inline DETENT_ABI::kernel {

/// Nothing is known: a product with any matrix, whatever its inputs are taken for.
struct any_weights {
    static constexpr int bits = 0;                ///< of a code; 0 if any
    static constexpr bool may_be_integers = true; ///< whether the numbers of codes may be those of an `integer_table`
    /// The columns of a tile as `cols_in_type` has them.
    static constexpr index_t tile_cols = dynamic;

    static constexpr bool takes(input_format) { return true; }
    /// Whether this kind of table may be the fastest.
    template <class Table> static constexpr bool may_use() { return true; }
};

/// Whether all numbers of this table are small enough for the sums of products with inputs of several bytes.
template <class Table> constexpr bool sums_fit(integer_table const& numbers) {
    return Table::two_sums || std::max(-numbers.lowest, numbers.highest) <= Table::largest_number;
}

/// A grid whose numbers are known when a program is compiled: one without state whose `decode` is constexpr.
template <class G>
concept ConstexprGrid = Grid<G> && std::is_empty_v<G> && requires {
    typename std::bool_constant<(table_of(G{}).size() > 0)>;
};

/// The numbers of a grid as integers times a power of two, if they are small ones.
template <ConstexprGrid G>
inline constexpr std::optional<integer_table> integers_of_grid = integers_of(table_of(G{}).data(), G::bits,
                                                                             AffineGrid<G>);

/// What the types of a grid and a granularity tell of a matrix.
template <Grid G, Granularity P> struct weights_of : any_weights {
    static constexpr int bits = G::bits;
    static constexpr index_t tile_cols = cols_in_type<P>;

    template <class Table> static constexpr bool may_use() {
        if constexpr (bits < Table::fewest_bits || bits > Table::most_bits) {
            return false;
        } else if constexpr (ConstexprGrid<G> && requires { Table::kind; }) {
            constexpr auto table = table_of(G{});
            return Table::kind == simd::fastest_table(table.data(), bits, is_consecutive(table), AffineGrid<G>).kind;
        } else if constexpr (ConstexprGrid<G> && requires { Table::two_sums; }) {
            constexpr auto numbers = integers_of_grid<G>;
            return numbers && numbers->highest - numbers->lowest <= 255 && sums_fit<Table>(*numbers);
        } else {
            return true;
        }
    }

    static constexpr bool may_be_integers = [] {
        if constexpr (ConstexprGrid<G>) {
            return integers_of_grid<G>.has_value();
        } else {
            return true;
        }
    }();
};

/// What is `Known`, and that inputs are floats which are to be taken for what they are.
template <class Known> struct times_floats : Known {
    static constexpr bool takes(input_format format) { return format == input_format::f32; }
};

/// Calls `f.template operator()<Bits>()` with the number of bits of a code.
template <class Known, class F> decltype(auto) with_bits_of(packed_view const& w, F&& f) {
    if constexpr (Known::bits > 0) {
        DETENT_EXPECTS(w.bits == Known::bits);
        return f.template operator()<Known::bits>();
    } else {
        return with_bits(w.bits, f);
    }
}

} // namespace detent::inline DETENT_ABI::kernel

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "detent/core/error.hpp"
#include "detent/grid/codebook_grid.hpp"
#include "detent/grid/fp_grid.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/grid/name.hpp"
#include "detent/scale/any_grid.hpp"

// Where the names of grids become types.

namespace detent::inline DETENT_ABI {

/// A grid by the name it has in specifications and files.
struct grid_name {
    std::string name;       ///< such as `int4`, `e2m1` or `nf4`, without `sym`; empty for none
    bool symmetric = false; ///< integers without a zero point
    bool any_split = false; ///< `fp4`, `fp6`, `fp8`: of exponent and mantissa bits, where formats are searched

    /// From `int4`, `int4sym`, `e2m1`, ...; `fp4`, `fp6` and `fp8` are the usual split where nothing is searched.
    static grid_name parse(std::string_view text) {
        if (text == "fp4" || text == "fp6" || text == "fp8") {
            return {text == "fp4" ? "e2m1" : text == "fp6" ? "e3m2" : "e4m3", false, true};
        }
        bool const symmetric = text.starts_with("int") && text.ends_with("sym");
        return {std::string(symmetric ? text.substr(0, text.size() - 3) : text), symmetric, false};
    }

    /// What `parse` reads as this grid, without a choice of splits.
    std::string text() const { return name + (symmetric ? "sym" : ""); }

    friend bool operator==(grid_name const&, grid_name const&) = default;
};

/// Calls `f(name, grid)` with every grid that has a name.
template <class F> void for_named_grids(F const& f) {
    auto const offer = [&](auto... grids) { (f(grid_name::parse(name_of(grids)), grids), ...); };
    auto const offer_integers = [&]<int... Less>(std::integer_sequence<int, Less...>) {
        (offer(int_grid<Less + 1, zero::free>{}, int_grid<Less + 1, zero::none>{}), ...);
    };
    auto const offer_floats = [&]<int E, int... M>(std::integral_constant<int, E>, std::integer_sequence<int, M...>) {
        offer(fp_grid<E, M>{}...);
    };
    auto const offer_all_floats = [&]<int... Less>(std::integer_sequence<int, Less...>) {
        (offer_floats(std::integral_constant<int, Less + 1>{}, std::make_integer_sequence<int, 7 - Less>{}), ...);
    };
    offer_integers(std::make_integer_sequence<int, 8>{});
    offer_all_floats(std::make_integer_sequence<int, 7>{});
    offer(e4m3{}, e5m2{}, nf4{}, ternary{});
}

/// Calls `f(grid)` with the grid of that name; answers whether there is one.
template <class F> bool visit_grid(grid_name const& wanted, F const& f) {
    bool found = false;
    for_named_grids([&]<Grid G>(grid_name const& name, G grid) {
        if (!found && wanted.name == name.name && wanted.symmetric == name.symmetric) {
            found = true;
            f(grid);
        }
    });
    return found;
}

/// The grid of that name as one known only at run time. @throws error when there is none.
inline any_grid find_grid(grid_name const& wanted) {
    std::vector<any_grid> found;
    if (!visit_grid(wanted, [&](auto grid) { found.emplace_back(grid, wanted.text()); })) {
        raise(error("grid '" + wanted.text() + "'", "is unknown"));
    }
    return found.front();
}

/// The grids among which a search of formats chooses, the usual one first: all splits of so many bits with two
/// exponents at least, but with 8 bits none of fewer than two mantissa bits, which LLM-FP4 leaves out too.
inline std::vector<grid_name> splits_of(grid_name const& grid) {
    std::vector<grid_name> all{grid};
    if (grid.any_split) {
        auto const split = find_grid(grid).split();
        int const bits = 1 + split->exponent_bits + split->mantissa_bits;
        for (int m = bits == 8 ? 2 : 0; m <= bits - 2; ++m) {
            grid_name const other{"e" + std::to_string(bits - 1 - m) + "m" + std::to_string(m), false, false};
            if (other.name != grid.name) {
                all.push_back(other);
            }
        }
    }
    return all;
}

} // namespace detent::inline DETENT_ABI

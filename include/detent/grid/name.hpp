// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <string>

#include "detent/grid/codebook_grid.hpp"
#include "detent/grid/fp_grid.hpp"
#include "detent/grid/grid.hpp"
#include "detent/grid/int_grid.hpp"

// What specifications and files call grids.

namespace detent::inline DETENT_ABI {

/// The name of a grid that has none, such as a user's own: it is empty.
template <Grid G> std::string name_of(G const&) { return {}; }

/// `int4` with a zero point, `int4sym` without.
template <int Bits, zero Zero> std::string name_of(int_grid<Bits, Zero> const&) {
    return "int" + std::to_string(Bits) + (Zero == zero::none ? "sym" : "");
}

/// `e2m1` where every code is a number.
template <int E, int M> std::string name_of(fp_grid<E, M, reserved::none> const&) {
    return "e" + std::to_string(E) + "m" + std::to_string(M);
}

/// `ocp-e4m3` and `ocp-e5m2`, where some codes are not.
inline std::string name_of(e4m3 const&) { return "ocp-e4m3"; }
inline std::string name_of(e5m2 const&) { return "ocp-e5m2"; }

/// `nf4` and `ternary`.
inline std::string name_of(nf4 const&) { return "nf4"; }
inline std::string name_of(ternary const&) { return "ternary"; }

} // namespace detent::inline DETENT_ABI

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <utility>

#include "detent/solver/rtn.hpp"
#include "detent/solver/solver.hpp"
#include "detent/transform/transform.hpp"

namespace detent::inline DETENT_ABI {

/// Solves a problem that keeps the layer's function but is easier: `transform` says how inputs are mapped, x' = M x,
/// and `inner` rounds W' = W M^-1 knowing the evidence of x', H' = M H M^T, which is mapped and not collected again.
/// The solution tells the map, which products apply once a call.
template <Transform T, Solver Inner = rtn> struct transformed {
    static constexpr wrapping wraps = wrapping::map;

    using evidence = layer_inputs;

    T transform = {};
    Inner inner = {};

    /// Codes, scales and the map for `w` (out, in). @throws error as `inner` and the transform, and when scales depend
    /// on where tiles lie in the matrix that is mapped.
    solution solve(matrix_view w, layer_inputs const& known, problem const& p, executor_ref executor = {}) const {
        expect_features(known.features(), w);
        if (p.placed()) {
            raise(error("transform", "scales that depend on their place cannot follow weights that are mapped"));
        }
        problem::expect_weights(w);
        input_map map = transform.fit(w, known);
        matrix const mapped = map.of_weights(w, executor); // (out, in)
        auto const refitted = p.with_unit_of(mapped);
        solution s = solve_with(inner, mapped, known.mapped(map, executor), refitted ? *refitted : p, executor);
        s.map = map.then(s.map);
        return s;
    }

    friend bool operator==(transformed const&, transformed const&) = default;
};

} // namespace detent::inline DETENT_ABI

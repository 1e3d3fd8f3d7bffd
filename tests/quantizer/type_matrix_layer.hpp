// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <concepts>

#include "quantizer/type_matrix.hpp"
#include "solver/correlated_inputs.hpp"

// The layer that the sample of the matrix of types is run on.

namespace detent::test {

/// How many weak columns there are, wherever in a solver they are counted.
template <class S> void take_columns_out(S& solver, index_t columns) {
    if constexpr (requires { solver.columns; }) {
        solver.columns = columns;
    }
    if constexpr (requires { solver.inner; }) {
        take_columns_out(solver.inner, columns);
    }
}

/// A layer of 24 x 48 weights and 300 inputs that depend on each other, a little less of which is left behind quantized
/// layers.
struct matrix_layer {
    matrix w = random_matrix(24, 48, 3);
    matrix x;
    layer_inputs known{48};

    matrix_layer() {
        matrix const floats = correlated_inputs(300, 48, 1);
        x = 0.98F * floats + 0.02F * floats.cwiseAbs().mean() * random_matrix(300, 48, 7);
        known.add(x, floats);
    }

    static matrix_layer const& shared() {
        static matrix_layer const layer;
        return layer;
    }
};

/// The output error, over the output, that no solver for so many bits may exceed.
constexpr double sane_error(int bits) {
    return bits == 1 ? 0.95 : bits == 2 ? 0.8 : bits == 3 ? 0.5 : bits < 8 ? 0.3 : 0.15;
}

template <class Q> Q make_quantizer() {
    Q q;
    take_columns_out(q.solver, 2);
    if constexpr (std::same_as<decltype(q.granularity), per_tile>) {
        q.granularity = {3, 20};
    }
    if constexpr (requires { q.range.steps; }) {
        q.range.steps = 20;
    }
    return q;
}

} // namespace detent::test

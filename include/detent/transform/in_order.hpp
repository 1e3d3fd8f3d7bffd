// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include "detent/core/eigen.hpp"
#include "detent/evidence/factor.hpp"
#include "detent/evidence/layer_inputs.hpp"
#include "detent/matrix/input_map.hpp"

namespace detent::inline DETENT_ABI {

/// Puts inputs in descending order of the diagonal of their Hessian, GPTQ's activation order: groups then hold inputs
/// of like size, and any solver sees the largest first.
struct in_order {
    template <class Scalar> input_map fit(matrix_view w, basic_layer_inputs<Scalar> const& known) const {
        return {permutation{order_of(finite_diagonal<Scalar>(known.hessian()), true)}, w.cols()};
    }

    friend constexpr bool operator==(in_order, in_order) = default;
};

} // namespace detent::inline DETENT_ABI

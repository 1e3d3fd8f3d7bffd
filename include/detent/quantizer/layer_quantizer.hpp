// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <utility>

#include "detent/evidence/layer_inputs.hpp"
#include "detent/matrix/quantized_matrix.hpp"
#include "detent/matrix/solution.hpp"
#include "detent/quantizer/evidence_needs.hpp"
#include "detent/quantizer/quantized_linear.hpp"

namespace detent::inline DETENT_ABI {

/// A quantization from what a quantizer answers.
inline quantization as_quantization(quantization q) { return q; }
template <class G, Granularity P> quantization as_quantization(quantized_matrix<G, P> q) {
    solve_report report = q.report();
    return {std::move(q).packed(), std::move(report)};
}
template <class G, Granularity P> quantization as_quantization(quantized_linear<G, P> q) {
    activation_quantizer input = q.input();
    quantization weights = as_quantization(std::move(q).weights());
    weights.input = std::move(input);
    return weights;
}

/// What quantizes one layer: anything with the call of `quantizer`, a specification's `named_quantizer` among them.
template <class Q>
concept LayerQuantizer = requires(Q const& quantize, matrix_view w, layer_inputs const& known, executor_ref executor) {
    as_quantization(quantize(w, known, executor));
};

/// What `q` must be shown; a user's own quantizer without `needs()` sees the inputs behind quantized layers.
template <LayerQuantizer Q> evidence_needs needs_of(Q const& q) {
    if constexpr (requires { q.needs(); }) {
        return q.needs();
    } else {
        return {};
    }
}

} // namespace detent::inline DETENT_ABI

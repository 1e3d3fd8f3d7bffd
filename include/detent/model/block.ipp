// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include "detent/model/block.hpp"
#include "detent/model/block_flow.hpp"
#include "detent/quantizer/kv_layer.hpp"

namespace detent::inline DETENT_ABI {

DETENT_INLINE matrix forward(block const& b, matrix_view x, nn::token_rows rows, executor_ref executor,
                             kv_layer* cache) {
    block_tape<float> tape;
    tape.keeps = false;
    return forward(b, x, rows, tape, executor, cache);
}

} // namespace detent::inline DETENT_ABI

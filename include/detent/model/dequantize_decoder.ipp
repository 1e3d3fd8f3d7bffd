// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <variant>

#include "detent/matrix/dequantize.hpp"
#include "detent/model/dequantize_decoder.hpp"

namespace detent::inline DETENT_ABI {

/// Makes a layer one of floats; answers whether it was packed.
DETENT_INLINE bool dequantize_layer(linear_layer& layer) {
    layer.input.reset();
    auto const* codes = std::get_if<packed_matrix>(&layer.weight);
    if (codes == nullptr) {
        return false;
    }
    layer.weight = dequantize(*codes);
    return true;
}

DETENT_INLINE index_t dequantize_block(block& b) {
    index_t packed = 0;
    for (layer_place const place : b.places()) {
        packed += dequantize_layer(b.linear(place)) ? 1 : 0;
    }
    b.head_input.reset();
    b.heads.probability_bits = 0;
    return packed;
}

DETENT_INLINE index_t dequantize_decoder(decoder& model) {
    index_t packed = dequantize_layer(model.embeddings) ? 1 : 0;
    for (auto* layer : {&model.lm_head, &model.project_in, &model.project_out}) {
        if (*layer) {
            packed += dequantize_layer(**layer) ? 1 : 0;
        }
    }
    for (block& b : model.blocks) {
        packed += dequantize_block(b);
    }
    return packed;
}

} // namespace detent::inline DETENT_ABI

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <variant>

#include "detent/matrix/dequantize.hpp"
#include "detent/model/dequantize_decoder.hpp"

namespace detent::inline DETENT_ABI {

DETENT_INLINE index_t dequantize_decoder(decoder& model) {
    index_t packed = 0;
    auto const make_floats = [&](linear_layer& layer) {
        if (auto const* codes = std::get_if<packed_matrix>(&layer.weight)) {
            layer.weight = dequantize(*codes);
            ++packed;
        }
        layer.input.reset();
    };
    make_floats(model.embeddings);
    for (auto* layer : {&model.lm_head, &model.project_in, &model.project_out}) {
        if (*layer) {
            make_floats(**layer);
        }
    }
    for (block& b : model.blocks) {
        for (layer_place const place : b.places()) {
            make_floats(b.linear(place));
        }
        b.head_input.reset();
        b.heads.probability_bits = 0;
    }
    return packed;
}

} // namespace detent::inline DETENT_ABI

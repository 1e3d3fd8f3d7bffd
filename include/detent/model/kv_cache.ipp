// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

#include "detent/core/index.hpp"
#include "detent/matrix/kv_store.hpp"
#include "detent/model/configuration.hpp"
#include "detent/model/kv_cache.hpp"
#include "detent/nn/tokens.hpp"
#include "detent/quantizer/kv_layer.hpp"

namespace detent::inline DETENT_ABI {

DETENT_INLINE kv_cache::kv_cache(model_configuration const& configuration, index_t capacity, kv_format const& format)
    : capacity_(capacity) {
    for (auto const& layer : configuration.layers) {
        layers_.emplace_back(format, configuration.heads.kv_heads, configuration.heads.head_dim, capacity,
                             layer.window);
    }
}

DETENT_INLINE void kv_cache::note(std::span<nn::token_id const> tokens) {
    tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
    rotated_length_ = size();
}

DETENT_INLINE void kv_cache::truncate(index_t size) {
    for (auto& layer : layers_) {
        layer.truncate(size);
    }
    tokens_.resize(std::min(tokens_.size(), static_cast<std::size_t>(size)));
}

} // namespace detent::inline DETENT_ABI

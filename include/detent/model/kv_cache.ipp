// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstddef>
#include <vector>

#include "detent/core/index.hpp"
#include "detent/matrix/kv_store.hpp"
#include "detent/model/configuration.hpp"
#include "detent/model/kv_cache.hpp"
#include "detent/quantizer/kv_layer.hpp"

namespace detent::inline DETENT_ABI {

DETENT_INLINE kv_cache::kv_cache(model_configuration const& configuration, index_t capacity, kv_format const& format)
    : capacity_(capacity) {
    for (auto const& layer : configuration.layers) {
        layers_.emplace_back(format, configuration.heads.kv_heads, configuration.heads.head_dim, capacity, layer.window);
    }
}

DETENT_INLINE void kv_cache::truncate(index_t size) {
    for (auto& layer : layers_) {
        layer.truncate(size);
    }
}

} // namespace detent::inline DETENT_ABI

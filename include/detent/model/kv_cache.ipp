// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

#include "detent/core/eigen.hpp"
#include "detent/core/error.hpp"
#include "detent/model/configuration.hpp"
#include "detent/model/kv_cache.hpp"

namespace detent::inline DETENT_ABI {

DETENT_INLINE void kv_layer::append(matrix_view keys, matrix_view values) {
    expect_valid(size_ + keys.rows() <= capacity(), "key-value cache", "has no room for so many tokens");
    keys_.middleRows(size_, keys.rows()) = keys;
    values_.middleRows(size_, values.rows()) = values;
    size_ += keys.rows();
}

DETENT_INLINE kv_cache::kv_cache(model_configuration const& configuration, index_t capacity)
    : layers_(static_cast<std::size_t>(configuration.layers),
              kv_layer(capacity, configuration.heads.kv_heads * configuration.heads.head_dim)) {}

DETENT_INLINE void kv_cache::truncate(index_t size) {
    for (auto& layer : layers_) {
        layer.truncate(size);
    }
}

} // namespace detent::inline DETENT_ABI

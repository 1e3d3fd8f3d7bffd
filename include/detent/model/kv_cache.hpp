// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

#include "detent/core/contract.hpp"
#include "detent/core/eigen.hpp"
#include "detent/model/configuration.hpp"

namespace detent::inline DETENT_ABI {

/// Keys and values of the tokens one block has seen, so that a new token need not compute them again.
class kv_layer {
public:
    /// Room for `capacity` tokens of `features` = kv_heads * head_dim.
    kv_layer(index_t capacity, index_t features) : keys_(capacity, features), values_(capacity, features) {}

    /// Tokens seen.
    index_t size() const { return size_; }
    index_t capacity() const { return keys_.rows(); }

    /// Adds the keys and values of the next tokens, (token, kv_heads * head_dim) each.
    void append(matrix_view keys, matrix_view values);

    /// Forgets all but the first `size` tokens.
    void truncate(index_t size) { size_ = std::min(size_, size); }

    matrix_view keys() const { return keys_.topRows(size_); }
    matrix_view values() const { return values_.topRows(size_); }

private:
    matrix keys_;   // (token, kv_heads * head_dim)
    matrix values_; // (token, kv_heads * head_dim)
    index_t size_ = 0;
};

/// The keys and values of one sequence, a layer per block.
class kv_cache {
public:
    /// Room for `capacity` tokens.
    kv_cache(model_configuration const& configuration, index_t capacity);

    /// Tokens seen.
    index_t size() const { return layers_.front().size(); }
    index_t capacity() const { return layers_.front().capacity(); }
    kv_layer& layer(index_t block) { return layers_[static_cast<std::size_t>(block)]; }

    /// Forgets all but the first `size` tokens.
    void truncate(index_t size);

private:
    std::vector<kv_layer> layers_;
};

} // namespace detent::inline DETENT_ABI

#if !defined(DETENT_COMPILED)
#include "detent/model/kv_cache.ipp" // IWYU pragma: export
#endif

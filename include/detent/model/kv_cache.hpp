// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "detent/core/index.hpp"
#include "detent/matrix/kv_store.hpp"
#include "detent/model/configuration.hpp"
#include "detent/nn/tokens.hpp"
#include "detent/quantizer/kv_layer.hpp"

namespace detent::inline DETENT_ABI {

/// The keys and values of one sequence, a layer per block, and its tokens.
class kv_cache {
public:
    /// Room for `capacity` tokens, stored as `format` says. @throws error when that does not fit the heads.
    kv_cache(model_configuration const& configuration, index_t capacity, kv_format const& format = {});

    /// Tokens seen.
    index_t size() const { return layers_.front().size(); }
    index_t capacity() const { return capacity_; }
    kv_layer const& layer(index_t i) const { return layers_[static_cast<std::size_t>(i)]; }
    kv_layer& layer(index_t i) { return layers_[static_cast<std::size_t>(i)]; }

    /// The tokens whose keys and values a decoder has put into all layers, so that it can compute them again.
    std::vector<nn::token_id> const& tokens() const { return tokens_; }

    /// The length of the sequence that the keys were rotated for. Rotary positions may depend on it.
    index_t rotated_length() const { return rotated_length_; }

    /// Notes that all layers now hold these tokens too.
    void note(std::span<nn::token_id const> tokens);

    /// Forgets all but the first `size` tokens. @throws error when tokens of the window before are no longer there.
    void truncate(index_t size);

private:
    index_t capacity_;
    std::vector<kv_layer> layers_;
    std::vector<nn::token_id> tokens_;
    index_t rotated_length_ = 0;
};

} // namespace detent::inline DETENT_ABI

#if !defined(DETENT_COMPILED)
#include "detent/model/kv_cache.ipp" // IWYU pragma: export
#endif

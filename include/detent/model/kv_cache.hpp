// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstddef>
#include <vector>

#include "detent/core/index.hpp"
#include "detent/matrix/kv_store.hpp"
#include "detent/model/configuration.hpp"
#include "detent/quantizer/kv_layer.hpp"

namespace detent::inline DETENT_ABI {

/// The keys and values of one sequence, a layer per block.
class kv_cache {
public:
    /// Room for `capacity` tokens, stored as `format` says. @throws error when that does not fit the heads.
    kv_cache(model_configuration const& configuration, index_t capacity, kv_format const& format = {});

    /// Tokens seen.
    index_t size() const { return layers_.front().size(); }
    index_t capacity() const { return capacity_; }
    kv_layer const& layer(index_t block) const { return layers_[static_cast<std::size_t>(block)]; }
    kv_layer& layer(index_t block) { return layers_[static_cast<std::size_t>(block)]; }

    /// Forgets all but the first `size` tokens.
    void truncate(index_t size);

private:
    index_t capacity_;
    std::vector<kv_layer> layers_;
};

} // namespace detent::inline DETENT_ABI

#if !defined(DETENT_COMPILED)
#include "detent/model/kv_cache.ipp" // IWYU pragma: export
#endif

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include "detent/model/equivalent_transform.hpp"
#include "detent/model/sites.hpp"
#include "nn/finite_differences.hpp"

namespace detent::test {

inline vector64 random_scales(index_t size, unsigned seed) { return (0.4 * random_vector64(size, seed).array()).exp(); }

/// Scales and shifts at every site of a block that can have some, and for keys.
inline equivalent_transform<double> random_transform(dense_block<double> const& b) {
    auto const channels = [&](site at, index_t count, unsigned seed) {
        equivalent_transform<double>::channels c;
        if (scale_obstacle(b, at).empty()) {
            c.scale = random_scales(count, seed);
        }
        if (can_shift(b, at)) {
            c.shift = 0.3 * random_vector64(count, seed + 1);
        }
        return c;
    };
    equivalent_transform<double> t;
    t.attention = channels(site::attention_input, b.query.weight.cols(), 1);
    t.context = channels(site::context, b.heads.kv_heads * b.heads.head_dim, 3);
    t.key_scale = random_scales(key_scales(b), 5);
    t.mlp = channels(site::mlp_input, b.query.weight.cols(), 6);
    for (auto const& mlp : b.mlps) {
        t.hidden.push_back(channels(site::hidden, mlp.up.weight.rows(), 8).scale);
    }
    return t;
}

} // namespace detent::test

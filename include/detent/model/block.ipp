// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cmath>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "detent/core/contract.hpp"
#include "detent/core/eigen.hpp"
#include "detent/core/executor.hpp"
#include "detent/matrix/activation_quantizer.hpp"
#include "detent/model/block.hpp"
#include "detent/model/kv_cache.hpp"
#include "detent/model/linear_layer.hpp"
#include "detent/model/norm_layer.hpp"
#include "detent/nn/activation.hpp"
#include "detent/nn/attention.hpp"
#include "detent/nn/rope.hpp"
#include "detent/nn/tokens.hpp"

namespace detent::inline DETENT_ABI {

DETENT_INLINE linear_layer const& block::linear(linear_role role) const {
    switch (role) {
    case linear_role::query:
        return query;
    case linear_role::key:
        return key;
    case linear_role::value:
        return value;
    case linear_role::output:
        return output;
    case linear_role::gate:
        DETENT_EXPECTS(gate.has_value());
        return *gate;
    case linear_role::up:
        return up;
    case linear_role::down:
    case linear_role::head:
        break;
    }
    DETENT_EXPECTS(role == linear_role::down);
    return down;
}

DETENT_INLINE std::vector<std::vector<linear_role>> block::groups() const {
    using role = linear_role;
    return {{role::query, role::key, role::value},
            {role::output},
            gate ? std::vector{role::gate, role::up} : std::vector{role::up},
            {role::down}};
}

DETENT_INLINE matrix block::attention_input(matrix_view x, executor_ref executor) const {
    return branch_input(x, attention_norm, executor);
}

DETENT_INLINE block::projections block::project(matrix_view attention_input, nn::token_rows rows,
                                         executor_ref executor) const {
    projections p{query.forward(attention_input, executor), key.forward(attention_input, executor),
                  value.forward(attention_input, executor)};
    if (rope) {
        rope->apply(p.q, rows, executor);
        rope->apply(p.k, rows, executor);
    }
    if (head_input) {
        for (matrix* const x : {&p.q, &p.k, &p.v}) {
            // (token and head, feature)
            Eigen::Map<matrix> parts(x->data(), x->size() / heads.head_dim, heads.head_dim);
            parts = head_input->round(parts, executor);
        }
    }
    return p;
}

DETENT_INLINE matrix block::attention_context(matrix_view attention_input, nn::token_rows rows, executor_ref executor,
                                              kv_layer* cache) const {
    auto const [q, k, v] = project(attention_input, rows, executor);
    if (cache == nullptr) {
        DETENT_EXPECTS(rows.start == 0);
        return nn::attention(q, k, v, heads, rows, attention_scale(), mask, executor);
    }
    DETENT_EXPECTS(mask == nn::attention_mask::causal && rows.sequences == 1 && rows.start == cache->size());
    cache->append(k, v, executor);
    return cache->attend(q, {.scale = attention_scale(), .probability_bits = heads.probability_bits}, executor);
}

DETENT_INLINE void block::add_attention(matrix_ref x, matrix_view context, executor_ref executor) const {
    add_branch(x, output.forward(context, executor), attention_norm, executor);
}

DETENT_INLINE matrix block::mlp_hidden(matrix_view mlp_input, executor_ref executor) const {
    if (gate) {
        return nn::swiglu(gate->forward(mlp_input, executor), up.forward(mlp_input, executor), executor);
    }
    return nn::activate(activation, up.forward(mlp_input, executor), executor);
}

DETENT_INLINE void block::add_mlp(matrix_ref x, matrix_view hidden, executor_ref executor) const {
    add_branch(x, down.forward(hidden, executor), mlp_norm, executor);
}

DETENT_INLINE matrix block::forward(matrix x, nn::token_rows rows, executor_ref executor, kv_layer* cache) const {
    add_attention(x, attention_context(attention_input(x, executor), rows, executor, cache), executor);
    add_mlp(x, mlp_hidden(mlp_input(x, executor), executor), executor);
    return x;
}

DETENT_INLINE matrix block::branch_input(matrix_view x, norm_layer const& norm, executor_ref executor) const {
    return norms == norm_placement::before ? norm.forward(x, executor) : matrix(x);
}

DETENT_INLINE void block::add_branch(matrix_ref x, matrix const& branch, norm_layer const& norm,
                                     executor_ref executor) const {
    executor.for_pieces(x.rows(), nn::rows_per_piece, [&](index_t begin, index_t end) {
        x.middleRows(begin, end - begin) += branch.middleRows(begin, end - begin);
    });
    if (norms == norm_placement::after) {
        x = norm.forward(x, executor);
    }
}

} // namespace detent::inline DETENT_ABI

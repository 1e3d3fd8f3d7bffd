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
#include "detent/model/kv_cache.hpp"
#include "detent/model/linear_layer.hpp"
#include "detent/model/norm_layer.hpp"
#include "detent/nn/activation.hpp"
#include "detent/nn/attention.hpp"
#include "detent/nn/rope.hpp"
#include "detent/nn/tokens.hpp"

namespace detent::inline DETENT_ABI {

/// What a linear layer does in its block, or as the output head of a model. OPT's fc1 and fc2 are `up` and `down`; it
/// has no `gate`.
enum class linear_role { query, key, value, output, gate, up, down, head };

/// Where a block normalizes: what its branches read, norm(x), as in decoders and most vision transformers, or what they
/// make together with x, norm(x + branch), as BERT and the first transformers do.
enum class norm_placement { before, after };

/// One transformer block of any family, a branch of attention and one of a feed-forward network. The forward pass comes
/// in the steps whose inputs calibration looks at; all activations are (token, feature).
struct block {
    norm_layer attention_norm; ///< before or after the branch, see `norms`
    linear_layer query;
    linear_layer key;
    linear_layer value;
    linear_layer output;
    norm_layer mlp_norm; ///< likewise
    std::optional<linear_layer> gate; ///< SwiGLU only
    linear_layer up;
    linear_layer down;
    nn::attention_heads heads;
    nn::activation activation = nn::activation::silu; ///< between up and down where there is no gate
    std::shared_ptr<nn::rope_table const> rope;       ///< shared by all blocks; none where positions are learned
    norm_placement norms = norm_placement::before;
    nn::attention_mask mask = nn::attention_mask::causal; ///< bidirectional in encoders
    /// Rounds what attention reads, each head of queries, keys and values as if it were a token; none where they stay.
    std::optional<activation_quantizer> head_input = {};

    linear_layer& linear(linear_role role) { return const_cast<linear_layer&>(std::as_const(*this).linear(role)); }
    linear_layer const& linear(linear_role role) const {
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

    /// The linear layers in the order they run; those of one group read the same input.
    std::vector<std::vector<linear_role>> groups() const {
        using role = linear_role;
        return {{role::query, role::key, role::value},
                {role::output},
                gate ? std::vector{role::gate, role::up} : std::vector{role::up},
                {role::down}};
    }

    /// The input of query, key and value.
    matrix attention_input(matrix_view x, executor_ref executor = {}) const {
        return branch_input(x, attention_norm, executor);
    }

    /// Queries, keys and values, (token, heads * head_dim) and (token, kv_heads * head_dim).
    struct projections {
        matrix q;
        matrix k;
        matrix v;
    };

    /// What query, key and value make of their input, queries and keys rotated where the model does that, and all of
    /// them rounded where attention reads rounded ones.
    projections project(matrix_view attention_input, nn::token_rows rows, executor_ref executor = {}) const {
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

    /// What the products of queries and keys are multiplied by.
    float attention_scale() const { return 1.0F / std::sqrt(static_cast<float>(heads.head_dim)); }

    /// The input of the output projection: attention over the tokens that `rows` describes or, with a cache and a
    /// causal mask, over one sequence whose first `rows.start` tokens are in the cache; the new ones are added to it.
    matrix attention_context(matrix_view attention_input, nn::token_rows rows, executor_ref executor = {},
                             kv_layer* cache = nullptr) const {
        auto const [q, k, v] = project(attention_input, rows, executor);
        if (cache == nullptr) {
            DETENT_EXPECTS(rows.start == 0);
            return nn::attention(q, k, v, heads, rows, attention_scale(), mask, executor);
        }
        DETENT_EXPECTS(mask == nn::attention_mask::causal && rows.sequences == 1 && rows.start == cache->size());
        cache->append(k, v);
        return nn::attention(q, cache->keys(), cache->values(), heads, rows, attention_scale(), mask, executor);
    }

    /// Ends the branch of attention, given the input of the output projection: `x` was the hidden state before the
    /// block and becomes that between the two branches.
    void add_attention(matrix_ref x, matrix_view context, executor_ref executor = {}) const {
        add_branch(x, output.forward(context, executor), attention_norm, executor);
    }

    /// The input of gate and up.
    matrix mlp_input(matrix_view x, executor_ref executor = {}) const { return branch_input(x, mlp_norm, executor); }

    /// The input of down.
    matrix mlp_hidden(matrix_view mlp_input, executor_ref executor = {}) const {
        if (gate) {
            return nn::swiglu(gate->forward(mlp_input, executor), up.forward(mlp_input, executor), executor);
        }
        return nn::activate(activation, up.forward(mlp_input, executor), executor);
    }

    /// Ends the branch of the feed-forward network, given the input of down: `x` was the hidden state between the two
    /// branches and becomes that after the block.
    void add_mlp(matrix_ref x, matrix_view hidden, executor_ref executor = {}) const {
        add_branch(x, down.forward(hidden, executor), mlp_norm, executor);
    }

    /// The hidden state after the block, given that before it; see `attention_context` for `rows` and `cache`.
    matrix forward(matrix x, nn::token_rows rows, executor_ref executor = {}, kv_layer* cache = nullptr) const {
        add_attention(x, attention_context(attention_input(x, executor), rows, executor, cache), executor);
        add_mlp(x, mlp_hidden(mlp_input(x, executor), executor), executor);
        return x;
    }

private:
    matrix branch_input(matrix_view x, norm_layer const& norm, executor_ref executor) const {
        return norms == norm_placement::before ? norm.forward(x, executor) : matrix(x);
    }

    void add_branch(matrix_ref x, matrix const& branch, norm_layer const& norm, executor_ref executor) const {
        executor.for_pieces(x.rows(), nn::rows_per_piece, [&](index_t begin, index_t end) {
            x.middleRows(begin, end - begin) += branch.middleRows(begin, end - begin);
        });
        if (norms == norm_placement::after) {
            x = norm.forward(x, executor);
        }
    }
};

} // namespace detent::inline DETENT_ABI

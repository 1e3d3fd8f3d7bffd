// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <memory>
#include <optional>
#include <vector>

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
    norm_layer mlp_norm;              ///< likewise
    std::optional<linear_layer> gate; ///< SwiGLU only
    linear_layer up;
    linear_layer down;
    nn::attention_heads heads;
    nn::activation activation = nn::activation::silu; ///< between up and down where there is no gate
    std::shared_ptr<nn::rotary const> rope;           ///< shared by all blocks; none where positions are learned
    norm_placement norms = norm_placement::before;
    nn::attention_mask mask = nn::attention_mask::causal; ///< bidirectional in encoders
    /// Rounds what attention reads, each head of queries, keys and values as if it were a token; none where they stay.
    std::optional<activation_quantizer> head_input = {};

    linear_layer& linear(linear_role role) { return const_cast<linear_layer&>(std::as_const(*this).linear(role)); }
    linear_layer const& linear(linear_role role) const;

    /// The linear layers in the order they run; those of one group read the same input.
    std::vector<std::vector<linear_role>> groups() const;

    /// The input of query, key and value.
    matrix attention_input(matrix_view x, executor_ref executor = {}) const;

    /// Queries, keys and values, (token, heads * head_dim) and (token, kv_heads * head_dim).
    struct projections {
        matrix q;
        matrix k;
        matrix v;
    };

    /// What query, key and value make of their input, queries and keys rotated where the model does that, and all of
    /// them rounded where attention reads rounded ones.
    projections project(matrix_view attention_input, nn::token_rows rows, executor_ref executor = {}) const;

    /// How attention weighs keys: by products over the root of the head dimension.
    nn::attention_form attention_form() const {
        nn::attention_form form;
        form.mask = mask;
        form.scale = 1.0F / std::sqrt(static_cast<float>(heads.head_dim)); // of floats, in double
        return form;
    }

    /// The input of the output projection: attention over the tokens that `rows` describes or, with a cache and a
    /// causal mask, over one sequence whose first `rows.start` tokens are in the cache; the new ones are added to it.
    matrix attention_context(matrix_view attention_input, nn::token_rows rows, executor_ref executor = {},
                             kv_layer* cache = nullptr) const;

    /// Ends the branch of attention, given the input of the output projection: `x` was the hidden state before the
    /// block and becomes that between the two branches.
    void add_attention(matrix_ref x, matrix_view context, executor_ref executor = {}) const;

    /// The input of gate and up.
    matrix mlp_input(matrix_view x, executor_ref executor = {}) const { return branch_input(x, mlp_norm, executor); }

    /// The input of down.
    matrix mlp_hidden(matrix_view mlp_input, executor_ref executor = {}) const;

    /// Ends the branch of the feed-forward network, given the input of down: `x` was the hidden state between the two
    /// branches and becomes that after the block.
    void add_mlp(matrix_ref x, matrix_view hidden, executor_ref executor = {}) const;

    /// The hidden state after the block, given that before it; see `attention_context` for `rows` and `cache`.
    matrix forward(matrix x, nn::token_rows rows, executor_ref executor = {}, kv_layer* cache = nullptr) const;

private:
    matrix branch_input(matrix_view x, norm_layer const& norm, executor_ref executor) const;

    void add_branch(matrix_ref x, matrix const& branch, norm_layer const& norm, executor_ref executor) const;
};

} // namespace detent::inline DETENT_ABI

#if !defined(DETENT_COMPILED)
#include "detent/model/block.ipp" // IWYU pragma: export
#endif

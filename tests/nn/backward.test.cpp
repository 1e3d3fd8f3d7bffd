// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// The backward passes of all operations, one after the other through a decoder block, against finite differences.

#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "detent/nn/activation.hpp"
#include "detent/nn/attention.hpp"
#include "detent/nn/linear.hpp"
#include "detent/nn/norm.hpp"
#include "detent/nn/rope.hpp"
#include "detent/nn/rotary_law.hpp"
#include "detent/nn/softmax.hpp"
#include "finite_differences.hpp"

namespace detent {

using test::matrix64;
using test::random_matrix64;
using test::vector64;

namespace {

constexpr index_t sequences = 2, length = 9, features = 12, hidden = 10, vocabulary = 11;
constexpr nn::attention_heads heads{.heads = 4, .kv_heads = 1, .head_dim = 4};
constexpr nn::token_rows rows{.sequences = sequences};
constexpr double eps = 1e-2, scale = 0.5;

struct weights {
    matrix64 q = random_matrix64(16, features, 1, 0.5F), k = random_matrix64(4, features, 2, 0.5F),
             v = random_matrix64(4, features, 3, 0.5F), o = random_matrix64(features, 16, 4, 0.5F),
             gate = random_matrix64(hidden, features, 5, 0.5F), up = random_matrix64(hidden, features, 6, 0.5F),
             down = random_matrix64(features, hidden, 7, 0.5F), head = random_matrix64(vocabulary, features, 8, 0.5F);
    vector64 rms = test::random_vector64(features, 9), layer = test::random_vector64(features, 10),
             bias = test::random_vector64(features, 11), q_bias = test::random_vector64(16, 12);

    template <class F> void for_each_with(weights& other, F const& f) {
        std::pair<matrix64*, matrix64*> const matrices[] = {{&q, &other.q}, {&k, &other.k}, {&v, &other.v},
                                                            {&o, &other.o}, {&gate, &other.gate}, {&up, &other.up},
                                                            {&down, &other.down}, {&head, &other.head}};
        std::pair<vector64*, vector64*> const vectors[] = {
            {&rms, &other.rms}, {&layer, &other.layer}, {&bias, &other.bias}, {&q_bias, &other.q_bias}};
        for (auto const& [a, b] : matrices) {
            f(*a, *b);
        }
        for (auto const& [a, b] : vectors) {
            f(*a, *b);
        }
    }
};

/// What the forward pass leaves for the backward one.
struct states {
    matrix64 attention_input, q, k, v, context, middle, mlp_input, gate, up, product, out, logits;
};

states forward(matrix64 const& x, weights const& w, nn::rotation const& rope) {
    states s;
    s.attention_input = nn::rms_norm(x, w.rms, eps);
    s.q = nn::linear(s.attention_input, w.q, w.q_bias);
    s.k = nn::linear(s.attention_input, w.k);
    s.v = nn::linear(s.attention_input, w.v);
    rope.apply(s.q, heads.head_dim, rows);
    rope.apply(s.k, heads.head_dim, rows);
    s.context = nn::attention(s.q, s.k, s.v, heads, rows, {.scale = scale});
    s.middle = x + nn::linear(s.context, w.o);
    s.mlp_input = nn::layer_norm(s.middle, w.layer, w.bias, eps);
    s.gate = nn::linear(s.mlp_input, w.gate);
    s.up = nn::linear(s.mlp_input, w.up);
    s.product = nn::gated({}, s.gate, s.up);
    s.out = s.middle + nn::linear(s.product, w.down);
    s.logits = nn::linear(s.out, w.head);
    return s;
}

} // namespace

TEST(backward, a_decoder_block_matches_finite_differences) {
    nn::rotation const rope = nn::rotary_of({.dimensions = heads.head_dim}, length).at(0, length);
    weights w, gradients;
    gradients.for_each_with(w, [](auto& gradient, auto&) { gradient.setZero(); });
    matrix64 x = random_matrix64(sequences * length, features, 13);
    std::vector<nn::token_id> tokens;
    for (index_t t = 0; t < x.rows(); ++t) {
        tokens.push_back(static_cast<nn::token_id>(t * 7 % vocabulary));
    }

    states const s = forward(x, w, rope);
    matrix64 const logits = nn::next_token_gradient(s.logits, tokens, sequences);
    nn::add_linear_weight_gradient(logits, s.out, gradients.head);
    matrix64 const out = nn::linear_input_gradient(logits, w.head);
    nn::add_linear_weight_gradient(out, s.product, gradients.down);
    auto const mlp = nn::gated_backward({}, s.gate, s.up, nn::linear_input_gradient(out, w.down));
    nn::add_linear_weight_gradient(mlp.gate, s.mlp_input, gradients.gate);
    nn::add_linear_weight_gradient(mlp.up, s.mlp_input, gradients.up);
    matrix64 const mlp_input =
        nn::linear_input_gradient(mlp.gate, w.gate) + nn::linear_input_gradient(mlp.up, w.up);
    matrix64 const middle =
        out + nn::layer_norm_backward(s.middle, w.layer, eps, mlp_input, &gradients.layer, &gradients.bias);
    nn::add_linear_weight_gradient(middle, s.context, gradients.o);
    auto attention = nn::attention_backward(s.q, s.k, s.v, nn::linear_input_gradient(middle, w.o), heads, rows,
                                            {.scale = scale});
    rope.apply_transposed(attention.q, heads.head_dim, rows);
    rope.apply_transposed(attention.k, heads.head_dim, rows);
    nn::add_linear_weight_gradient(attention.q, s.attention_input, gradients.q);
    nn::add_linear_bias_gradient(attention.q, gradients.q_bias);
    nn::add_linear_weight_gradient(attention.k, s.attention_input, gradients.k);
    nn::add_linear_weight_gradient(attention.v, s.attention_input, gradients.v);
    matrix64 const attention_input = nn::linear_input_gradient(attention.q, w.q) +
                                     nn::linear_input_gradient(attention.k, w.k) +
                                     nn::linear_input_gradient(attention.v, w.v);
    matrix64 const x_gradient = middle + nn::rms_norm_backward(x, w.rms, eps, attention_input, &gradients.rms);

    auto const loss = [&] { return nn::next_token_loss(forward(x, w, rope).logits, tokens, sequences); };
    test::expect_gradient(x_gradient, x, loss);
    gradients.for_each_with(w, [&](auto& gradient, auto& weight) { test::expect_gradient(gradient, weight, loss); });
}

} // namespace detent

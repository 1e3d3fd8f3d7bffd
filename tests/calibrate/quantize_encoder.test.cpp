// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "detent/calibrate/quantize_encoder.hpp"

#include <algorithm>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <gtest/gtest.h>

#include "calibrate/tiny_models.hpp"
#include "detent/model/load_encoder.hpp"
#include "io/failure_message.hpp"
#include "io/temporary_directory.hpp"
#include "model/random_encoder.hpp"

namespace detent {
namespace {

using test::layer_quantizer;

/// The blocks of a small random encoder and what to show them: batches of sequences of different lengths.
struct shown_encoder {
    std::vector<block> blocks;
    std::vector<hidden_batch> batches;
};

shown_encoder text() {
    temporary_directory const directory;
    test::bert_checkpoint().write(directory.path());
    auto model = load_text_encoder(directory.path());
    std::vector<std::vector<nn::token_id>> sentences;
    for (index_t i = 0; i < 40; ++i) {
        auto& sentence = sentences.emplace_back();
        for (index_t t = 0; t < 1 + i * 7 % 9; ++t) {
            sentence.push_back(static_cast<nn::token_id>((i * 5 + t * t + 3) % 19));
        }
    }
    auto batches = embed_batches(model, sentences);
    return {std::move(model.blocks), std::move(batches)};
}

shown_encoder image(bool norms_first) {
    temporary_directory const directory;
    test::torch_checkpoint(norms_first).write(directory.path());
    auto model = load_image_encoder(directory.path());
    matrix const images = matrix::NullaryExpr(500, 72, [](index_t i, index_t j) {
        return static_cast<float>((i * 31 + j * j * 7 + i * i * j) % 23) / 11.0F - 1.0F;
    });
    auto batches = embed_batches(model, images);
    return {std::move(model.blocks), std::move(batches)};
}

class quantize_encoder_of : public testing::TestWithParam<std::string> {
protected:
    static shown_encoder make() {
        return GetParam() == "text" ? text() : image(GetParam() == "image_norms_first");
    }

    shown_encoder const original_ = make();
};
INSTANTIATE_TEST_SUITE_P(, quantize_encoder_of, testing::Values("text", "image", "image_norms_first"),
                         [](auto const& test) { return test.param; });

/// What the four groups of layers of `b` read, written out for both placements of norms; `x` goes through the block.
std::vector<matrix> inputs_of(block const& b, matrix& x, index_t sequences) {
    bool const first = b.norms == norm_placement::before;
    matrix const attention = first ? b.attention_norm.forward(x) : x;
    matrix const context = nn::attention(b.query.forward(attention), b.key.forward(attention),
                                         b.value.forward(attention), b.heads, {.sequences = sequences},
                                         b.attention_form());
    x += b.output.forward(context);
    x = first ? x : b.attention_norm.forward(x);
    matrix const mlp = first ? b.mlp_norm.forward(x) : x;
    matrix const hidden = nn::activate(b.activation, b.up.forward(mlp));
    x += b.down.forward(hidden);
    x = first ? x : b.mlp_norm.forward(x);
    return {attention, context, mlp, hidden};
}

TEST_P(quantize_encoder_of, shows_every_layer_what_it_reads_in_the_float_model) {
    ASSERT_GT(original_.batches.size(), 1U);
    auto blocks = original_.blocks;
    std::vector<layer_inputs> seen;
    std::vector<linear_role> roles;
    layer_quantizer<int_grid<3>> const q{.to_nearest = true};
    auto const reports = quantize_encoder(blocks, [&](matrix const& w, layer_inputs const& known, linear_role role) {
                                              seen.push_back(known);
                                              roles.push_back(role);
                                              return q(w, known);
                                          },
                                          {.batches = original_.batches, .keep_inputs = true});
    ASSERT_EQ(reports.size(), 12U);
    auto batches = original_.batches;
    std::size_t layer = 0;
    for (block const& b : original_.blocks) {
        std::vector<std::vector<matrix>> inputs; // of each batch and group
        for (auto& batch : batches) {
            inputs.push_back(inputs_of(b, batch.x, batch.sequences));
        }
        auto const groups = b.groups();
        for (std::size_t g = 0; g < groups.size(); ++g) {
            for (linear_role const role : groups[g]) {
                EXPECT_EQ(roles[layer], role);
                EXPECT_EQ(reports[layer].name, b.linear(role).name);
                EXPECT_EQ(reports[layer].shape, b.linear(role).shape());
                EXPECT_GT(reports[layer].error, 0);
                EXPECT_LT(reports[layer].error, 0.5);
                matrix const kept = seen[layer].kept();
                index_t row = 0;
                for (auto const& of_batch : inputs) {
                    matrix const& x = of_batch[g];
                    ASSERT_LE(row + x.rows(), kept.rows());
                    EXPECT_LE((kept.middleRows(row, x.rows()) - x).cwiseAbs().maxCoeff(), 1e-6F) << layer;
                    row += x.rows();
                }
                EXPECT_EQ(row, kept.rows());
                EXPECT_EQ(row, seen[layer].hessian().tokens());
                ++layer;
            }
        }
    }
    EXPECT_EQ(layer, 12U);
}

TEST_P(quantize_encoder_of, replaces_the_weights_of_all_layers_and_nothing_else) {
    auto blocks = original_.blocks;
    layer_quantizer<int_grid<8>> const q{.to_nearest = true};
    auto const reports = quantize_encoder(blocks, q, {original_.batches});
    std::size_t layer = 0;
    for (std::size_t i = 0; i < blocks.size(); ++i) {
        for (auto const& group : blocks[i].groups()) {
            for (linear_role const role : group) {
                auto const* packed = std::get_if<packed_matrix>(&blocks[i].linear(role).weight);
                ASSERT_NE(packed, nullptr);
                auto const& was = original_.blocks[i].linear(role);
                auto const& weights = std::get<matrix>(was.weight);
                EXPECT_LE((dequantize(*packed) - weights).norm(), 0.01F * weights.norm());
                EXPECT_EQ(blocks[i].linear(role).bias, was.bias);
                EXPECT_EQ(reports[layer].bits_per_weight, packed->bits_per_weight());
                ++layer;
            }
        }
    }
    // Eight bits hardly change what the encoder makes.
    for (auto const& [x, sequences] : original_.batches) {
        matrix y = x, expected = x;
        for (std::size_t i = 0; i < blocks.size(); ++i) {
            y = blocks[i].forward(std::move(y), {.sequences = sequences});
            expected = original_.blocks[i].forward(std::move(expected), {.sequences = sequences});
        }
        EXPECT_LE((y - expected).norm(), 0.05F * expected.norm());
        EXPECT_NE(y, expected);
    }
}

#if defined(_OPENMP)
TEST_P(quantize_encoder_of, chooses_the_same_codes_on_any_number_of_threads) {
    std::vector<block> first;
    for (index_t const count : {1, 3}) {
        auto blocks = original_.blocks;
        thread_team executor(count);
        layer_quantizer<int_grid<3>> q;
        q.executor = executor;
        quantize_encoder(blocks, q, {original_.batches}, executor);
        if (first.empty()) {
            first = blocks;
        }
        for (std::size_t i = 0; i < blocks.size(); ++i) {
            for (auto const& group : blocks[i].groups()) {
                for (linear_role const role : group) {
                    EXPECT_TRUE(std::get<packed_matrix>(blocks[i].linear(role).weight) ==
                                std::get<packed_matrix>(first[i].linear(role).weight));
                }
            }
        }
    }
}
#endif

TEST(quantize_encoder, names_what_is_wrong) {
    shown_encoder encoder = text();
    auto& blocks = encoder.blocks;
    auto const& batches = encoder.batches;
    layer_quantizer<int_grid<4>> const q{.to_nearest = true};
    EXPECT_EQ(failure_message([&] { quantize_encoder(blocks, q, {}); }), "calibration inputs: have no tokens");
    auto broken = blocks;
    EXPECT_EQ(failure_message([&] {
                  quantize_encoder(broken, [&](matrix const& w, layer_inputs const& known, linear_role role) {
                                       return role == linear_role::up ? throw error("this", "is it") : q(w, known);
                                   },
                                   {batches});
              }),
              "layer 'bert.encoder.layer.0.intermediate.dense': this: is it");
    quantize_encoder(blocks, q, {batches});
    std::string const twice = failure_message([&] { quantize_encoder(blocks, q, {batches}); });
    EXPECT_TRUE(contains(twice, "layer 'bert.encoder.layer.0.attention.self.query': ") &&
                contains(twice, "quantized already"))
        << twice;
}

TEST(quantize_encoder, tells_how_far_it_is_and_stops_when_told_to) {
    shown_encoder encoder = text();
    auto& blocks = encoder.blocks;
    auto const& batches = encoder.batches;
    layer_quantizer<int_grid<4>> const q{.to_nearest = true};
    std::vector<double> fractions;
    auto counted = blocks;
    quantize_encoder(counted, q, {batches}, {}, [&](std::string_view what, double fraction) {
        EXPECT_EQ(what, "quantize");
        fractions.push_back(fraction);
        return true;
    });
    EXPECT_EQ(fractions.front(), 0);
    EXPECT_EQ(fractions.back(), 1);
    EXPECT_TRUE(std::ranges::is_sorted(fractions));
    EXPECT_THROW(quantize_encoder(blocks, q, {batches}, {}, [](std::string_view, double f) { return f < 0.3; }),
                 cancelled);
}

} // namespace
} // namespace detent

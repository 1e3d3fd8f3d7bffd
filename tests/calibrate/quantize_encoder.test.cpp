// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <algorithm>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <gtest/gtest.h>

#include "calibrate/tiny_models.hpp"
#include "detent/calibrate/quantize_encoder.hpp"
#include "detent/core/thread_team.hpp"
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

shown_encoder image(test::encoder_checkpoint const& checkpoint) {
    temporary_directory const directory;
    checkpoint.write(directory.path());
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
        auto const& name = GetParam();
        return name == "text"    ? text()
               : name == "gated" ? image(test::dinov2_checkpoint(true))
                                 : image(test::torch_checkpoint(name == "image_norms_first"));
    }

    /// Layers of each of the two blocks.
    static std::size_t layers() { return GetParam() == "gated" ? 7 : 6; }

    shown_encoder const original_ = make();
};
INSTANTIATE_TEST_SUITE_P(, quantize_encoder_of, testing::Values("text", "image", "image_norms_first", "gated"),
                         [](auto const& test) { return test.param; });

/// What the four groups of layers of `b` read, written out; `x` goes through the block.
std::vector<matrix> inputs_of(block const& b, matrix& x, index_t sequences) {
    auto const& network = b.mlps.front();
    auto const read = [&](auto const& norms) { return norms.input ? norms.input->forward(x) : x; };
    auto const add = [&](auto const& norms, matrix const& made) {
        x += norms.output ? norms.output->forward(made) : made;
        x = norms.sum ? norms.sum->forward(x) : x;
    };
    matrix const attention = read(b.attention_norms);
    matrix const context = nn::attention(b.query.forward(attention), b.key.forward(attention),
                                         b.value.forward(attention), b.heads, {.sequences = sequences}, b.attention);
    add(b.attention_norms, b.output.forward(context));
    matrix const mlp = read(b.mlp_norms);
    matrix const up = network.up.forward(mlp);
    matrix const hidden =
        network.gate ? nn::gated(b.gate_form, network.gate->forward(mlp), up) : nn::activate(b.gate_form.kind, up);
    add(b.mlp_norms, network.down.forward(hidden));
    return {attention, context, mlp, hidden};
}

TEST_P(quantize_encoder_of, shows_every_layer_what_it_reads_in_the_float_model) {
    ASSERT_GT(original_.batches.size(), 1U);
    auto blocks = original_.blocks;
    std::vector<layer_inputs> seen;
    std::vector<layer_place> places;
    layer_quantizer<int_grid<3>> const q{.to_nearest = true};
    auto const reports = quantize_encoder(blocks,
                                          [&](matrix const& w, layer_inputs const& known, layer_place place) {
                                              seen.push_back(known);
                                              places.push_back(place);
                                              return q(w, known);
                                          },
                                          {.batches = original_.batches, .keep_inputs = true});
    ASSERT_EQ(reports.size(), 2 * layers());
    auto batches = original_.batches;
    std::size_t layer = 0;
    for (block const& b : original_.blocks) {
        std::vector<std::vector<matrix>> inputs; // of each batch and group
        for (auto& batch : batches) {
            inputs.push_back(inputs_of(b, batch.x, batch.sequences));
        }
        auto const groups = b.groups();
        for (std::size_t g = 0; g < groups.size(); ++g) {
            for (layer_place const place : groups[g]) {
                EXPECT_EQ(places[layer], place);
                EXPECT_EQ(reports[layer].place, place);
                EXPECT_EQ(reports[layer].name, b.linear(place).name);
                EXPECT_EQ(reports[layer].shape, b.linear(place).shape());
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
    EXPECT_EQ(layer, 2 * layers());
}

TEST_P(quantize_encoder_of, replaces_the_weights_of_all_layers_and_nothing_else) {
    auto blocks = original_.blocks;
    layer_quantizer<int_grid<8>> const q{.to_nearest = true};
    auto const reports = quantize_encoder(blocks, q, {original_.batches});
    std::size_t layer = 0;
    for (std::size_t i = 0; i < blocks.size(); ++i) {
        for (auto const& group : blocks[i].groups()) {
            for (layer_place const place : group) {
                auto const* packed = std::get_if<packed_matrix>(&blocks[i].linear(place).weight);
                ASSERT_NE(packed, nullptr);
                auto const& was = original_.blocks[i].linear(place);
                auto const& weights = std::get<matrix>(was.weight);
                EXPECT_LE((dequantize(*packed) - weights).norm(), 0.01F * weights.norm());
                EXPECT_EQ(blocks[i].linear(place).bias, was.bias);
                EXPECT_EQ(reports[layer].bits_per_weight, packed->bits_per_weight());
                ++layer;
            }
        }
    }
    // Eight bits hardly change what the encoder makes.
    for (auto const& [x, sequences] : original_.batches) {
        matrix y = x, expected = x;
        for (std::size_t i = 0; i < blocks.size(); ++i) {
            y = forward(blocks[i], y, {.sequences = sequences});
            expected = forward(original_.blocks[i], expected, {.sequences = sequences});
        }
        EXPECT_LE((y - expected).norm(), 0.05F * expected.norm());
        EXPECT_NE(y, expected);
    }
}

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
                for (layer_place const place : group) {
                    EXPECT_TRUE(std::get<packed_matrix>(blocks[i].linear(place).weight) ==
                                std::get<packed_matrix>(first[i].linear(place).weight));
                }
            }
        }
    }
}

TEST(quantize_encoder, names_what_is_wrong) {
    shown_encoder encoder = text();
    auto& blocks = encoder.blocks;
    auto const& batches = encoder.batches;
    layer_quantizer<int_grid<4>> const q{.to_nearest = true};
    EXPECT_EQ(failure_message([&] { quantize_encoder(blocks, q, {}); }), "calibration inputs: have no tokens");
    auto broken = blocks;
    EXPECT_EQ(failure_message([&] {
                  quantize_encoder(broken,
                                   [&](matrix const& w, layer_inputs const& known, layer_place place) {
                                       return place.role == linear_role::up ? throw error("this", "is it")
                                                                            : q(w, known);
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

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <algorithm>
#include <array>
#include <cmath>

#include <gtest/gtest.h>

#include "detent/core/thread_team.hpp"
#include "detent/model/block_flow.hpp"
#include "detent/model/encoder.hpp"
#include "detent/model/load_encoder.hpp"
#include "io/failure_message.hpp"
#include "io/temporary_directory.hpp"
#include "model/random_encoder.hpp"
#include "model/reference_encoder.hpp"

namespace detent {
namespace {

text_encoder load_text(test::encoder_checkpoint const& checkpoint) {
    temporary_directory const directory;
    checkpoint.write(directory.path());
    return load_text_encoder(directory.path());
}

image_encoder load_image(test::encoder_checkpoint const& checkpoint) {
    temporary_directory const directory;
    checkpoint.write(directory.path());
    return load_image_encoder(directory.path());
}

/// Ids below `vocabulary`.
std::vector<nn::token_id> some_ids(index_t count, index_t vocabulary) {
    std::vector<nn::token_id> ids;
    for (index_t t = 0; t < count; ++t) {
        ids.push_back(static_cast<nn::token_id>((t * t + 5 * t + 3) % vocabulary));
    }
    return ids;
}

matrix some_images(image_encoder const& model, index_t count) {
    return matrix::NullaryExpr(count, model.configuration.pixels(), [](index_t i, index_t j) {
        return static_cast<float>((i * 31 + j * j * 7 + j) % 23) / 11.0F - 1.0F;
    });
}

class image_encoder_of : public testing::TestWithParam<test::encoder_case> {
protected:
    test::encoder_checkpoint const checkpoint_ = GetParam().make();
    image_encoder const model_ = load_image(checkpoint_);
};
INSTANTIATE_TEST_SUITE_P(, image_encoder_of, testing::ValuesIn(test::image_encoder_cases()), test::encoder_case_name);

TEST_P(image_encoder_of, matches_the_scalar_reference) {
    test::reference_encoder const reference(checkpoint_);
    matrix const images = some_images(model_, 3);
    matrix const hidden = model_.forward(images);
    ASSERT_EQ(shape_of(hidden), (extents{3 * model_.configuration.tokens(), 12}));
    matrix const logits = model_.logits(hidden);
    ASSERT_EQ(shape_of(logits), (extents{3, 5}));
    for (index_t i = 0; i < 3; ++i) {
        std::vector<std::vector<std::vector<double>>> pixels(6, {6, std::vector<double>(2)});
        for (index_t j = 0; j < 72; ++j) {
            auto const [channel, row, col] = std::array{j / 36, j / 6 % 6, j % 6};
            pixels[static_cast<std::size_t>(row)][static_cast<std::size_t>(col)][static_cast<std::size_t>(channel)] =
                double(images(i, j));
        }
        auto const expected = reference.image(pixels);
        for (index_t c = 0; c < 5; ++c) {
            double const e = expected[static_cast<std::size_t>(c)];
            EXPECT_NEAR(logits(i, c), e, 5e-5 * (1 + std::abs(e))) << i << ' ' << c;
        }
    }
}

TEST_P(image_encoder_of, steps_of_a_block_compose_to_its_forward) {
    nn::token_rows const rows{.sequences = 2};
    matrix const x = model_.embed(some_images(model_, 2));
    for (block const& b : model_.blocks) {
        bool const first = checkpoint_.norms_first;
        auto const& attention = b.attention_norms;
        auto const& mlp = b.mlp_norms;
        EXPECT_EQ(attention.input.has_value(), first);
        EXPECT_EQ(attention.sum.has_value(), !first);
        EXPECT_EQ(attention.output.has_value(), checkpoint_.scaled);
        block_tape<float> tape;
        enter_attention(b, matrix_view(x), tape);
        EXPECT_EQ(tape.attention_input.read(), first ? attention.input->forward(x) : x);
        attend(b, rows, tape);
        matrix made = b.output.forward(tape.context.read());
        matrix middle = x + (checkpoint_.scaled ? attention.output->forward(made) : made);
        middle = first ? middle : attention.sum->forward(middle);
        leave_attention(b, matrix_view(x), tape);
        EXPECT_EQ(tape.middle, middle);
        enter_mlp(b, matrix_view(x), tape);
        EXPECT_EQ(tape.mlp_input.read(), first ? mlp.input->forward(middle) : middle);
        run_hidden(b, 0, tape);
        made = b.mlps.front().down.forward(tape.mlps.front().hidden.read());
        matrix const last = middle + (checkpoint_.scaled ? mlp.output->forward(made) : made);
        matrix const after = leave_mlp(b, tape);
        EXPECT_EQ(after, first ? last : mlp.sum->forward(last));
        EXPECT_EQ(forward(b, x, rows), after);
    }
}

TEST_P(image_encoder_of, images_in_a_batch_do_not_see_each_other) {
    matrix const images = some_images(model_, 3);
    matrix const all = model_.forward(images);
    for (index_t i = 0; i < 3; ++i) {
        matrix const alone = model_.forward(images.row(i));
        EXPECT_LE((alone - all.middleRows(i * alone.rows(), alone.rows())).cwiseAbs().maxCoeff(), 2e-5F);
    }
}

TEST_P(image_encoder_of, groups_hold_every_layer_once_with_the_width_of_their_input) {
    block const& b = model_.blocks[1];
    std::vector<linear_role> roles;
    for (auto const& group : b.groups()) {
        for (layer_place const place : group) {
            roles.push_back(place.role);
            EXPECT_EQ(b.linear(place).shape().cols, b.linear(group.front()).shape().cols);
        }
    }
    using enum linear_role;
    EXPECT_EQ(roles, (checkpoint_.gated ? std::vector{query, key, value, output, gate, up, down}
                                        : std::vector{query, key, value, output, up, down}));
    EXPECT_EQ(b.mlps.front().down.shape(), (extents{12, checkpoint_.inner}));
}

TEST(image_encoder, normalizes_bytes_to_one_plane_for_each_channel) {
    auto const model = load_image(test::torch_checkpoint());
    std::vector<std::uint8_t> bytes(2 * 72);
    for (std::size_t i = 0; i < bytes.size(); ++i) {
        bytes[i] = static_cast<std::uint8_t>(i * 7 % 256);
    }
    matrix const images = model.normalize(bytes);
    ASSERT_EQ(shape_of(images), (extents{2, 72}));
    for (index_t i = 0; i < 2; ++i) {
        for (index_t channel = 0; channel < 2; ++channel) {
            double const mean = channel == 0 ? 0.4 : 0.5, deviation = channel == 0 ? 0.2 : 0.25;
            for (index_t place = 0; place < 36; ++place) {
                double const byte = bytes[static_cast<std::size_t>(i * 72 + place * 2 + channel)];
                EXPECT_NEAR(images(i, channel * 36 + place), (byte / 255 - mean) / deviation, 1e-6);
            }
        }
    }
    EXPECT_EQ(model.normalize({}).rows(), 0);
}

TEST(image_encoder, without_classes_makes_normalized_states) {
    auto checkpoint = test::dinov2_checkpoint(false);
    checkpoint.configuration["architectures"] = {"Dinov2Model"};
    auto const model = load_image(checkpoint);
    matrix const hidden = model.forward(some_images(model, 2));
    EXPECT_EQ(model.normalized(hidden), model.final_norm.forward(hidden));
    EXPECT_EQ(failure_message([&] { model.logits(hidden); }), "model: tells no classes, only hidden states");
}

TEST(image_encoder, images_of_another_size_are_errors) {
    auto const model = load_image(test::vit_checkpoint());
    EXPECT_EQ(failure_message([&] { model.forward(matrix::Zero(1, 2 * 8 * 8)); }),
              "images: of 128 numbers are of another size than the model's, 6 x 6 pixels in 2 channels; positions are "
              "not interpolated");
}

TEST(image_encoder, wrong_bytes_are_errors) {
    std::vector<std::uint8_t> const bytes(100);
    auto const torch = load_image(test::torch_checkpoint());
    EXPECT_EQ(failure_message([&] { torch.normalize(bytes); }),
              "images: are 100 bytes, no multiple of the 72 of an image of the model");
    auto const vit = load_image(test::vit_checkpoint());
    EXPECT_EQ(failure_message([&] { vit.normalize(std::span(bytes).first(72)); }),
              "images: cannot be normalized: the model has no mean and deviation of pixels");
}

class text_encoder_of : public testing::TestWithParam<test::encoder_case> {};

test::encoder_checkpoint bert_with(std::string const& activation) {
    auto checkpoint = test::bert_checkpoint();
    checkpoint.configuration["hidden_act"] = activation;
    return checkpoint;
}

std::vector<test::encoder_case> texts() {
    auto all = test::text_encoder_cases();
    for (std::string const activation : {"gelu_new", "relu"}) {
        all.push_back({"bert_" + activation, [activation] { return bert_with(activation); }});
    }
    return all;
}

INSTANTIATE_TEST_SUITE_P(, text_encoder_of, testing::ValuesIn(texts()), test::encoder_case_name);

TEST_P(text_encoder_of, matches_the_scalar_reference) {
    auto const checkpoint = GetParam().make();
    auto const model = load_text(checkpoint);
    test::reference_encoder const reference(checkpoint);
    index_t const length = 9;
    auto const tokens = some_ids(2 * length, 19); // among them 3, which pads RoBERTa's
    auto const types = some_ids(2 * length, std::max<index_t>(1, model.configuration.token_types));
    matrix const hidden = model.forward(tokens, 2, {}, types);
    ASSERT_EQ(shape_of(hidden), (extents{2 * length, 12}));
    for (index_t s = 0; s < 2; ++s) {
        auto const part = [&](auto const& ids) {
            return std::vector(ids.begin() + s * length, ids.begin() + (s + 1) * length);
        };
        auto const expected = reference.text(part(tokens), part(types));
        for (index_t t = 0; t < length; ++t) {
            for (index_t j = 0; j < 12; ++j) {
                double const e = expected[static_cast<std::size_t>(t)][static_cast<std::size_t>(j)];
                ASSERT_NEAR(hidden(s * length + t, j), e, 5e-5 * (1 + std::abs(e))) << t << ' ' << j;
            }
        }
    }
    std::vector<nn::token_id> const none(tokens.size(), 0);
    EXPECT_EQ(model.forward(tokens, 2), model.forward(tokens, 2, {}, none));
}

TEST(text_encoder, embeds_sentences_of_any_lengths) {
    auto const model = load_text(test::bert_checkpoint());
    std::vector<std::vector<nn::token_id>> sentences;
    for (index_t const length : {3, 10, 1, 3, 7, 10, 3}) {
        sentences.push_back(some_ids(length + std::ssize(sentences), 19));
        sentences.back().erase(sentences.back().begin(), sentences.back().end() - length);
    }
    matrix const embeddings = model.sentence_embeddings(sentences);
    ASSERT_EQ(shape_of(embeddings), (extents{7, 12}));
    for (index_t i = 0; i < 7; ++i) {
        auto const& sentence = sentences[static_cast<std::size_t>(i)];
        Eigen::VectorXd const mean = model.forward(sentence).cast<double>().colwise().sum() / double(sentence.size());
        for (index_t j = 0; j < 12; ++j) {
            EXPECT_NEAR(embeddings(i, j), mean(j) / mean.norm(), 2e-5) << i << ' ' << j;
        }
    }
    EXPECT_EQ(shape_of(model.sentence_embeddings({})), (extents{0, 12}));
}

TEST(text_encoder, wrong_tokens_are_errors) {
    auto const model = load_text(test::bert_checkpoint());
    std::vector<nn::token_id> tokens{1, 19, 2};
    EXPECT_EQ(failure_message([&] { model.forward(tokens); }), "token 1: has id 19, outside the vocabulary of 19");
    tokens[1] = -1;
    EXPECT_EQ(failure_message([&] { model.forward(tokens); }), "token 1: has id -1, outside the vocabulary of 19");
    tokens[1] = 0;
    std::vector<nn::token_id> const types{0, 0, 3};
    EXPECT_EQ(failure_message([&] { model.forward(tokens, 1, {}, types); }),
              "token 2: has type 3, outside the vocabulary of 3");
    EXPECT_EQ(failure_message([&] { model.forward(some_ids(11, 19)); }),
              "sequence of 11 tokens: is longer than the 10 the model can take");
    EXPECT_EQ(failure_message([&] { model.forward(some_ids(10, 19)); }), "");
    std::vector<std::vector<nn::token_id>> const sentences{{1}, {}};
    EXPECT_EQ(failure_message([&] { model.sentence_embeddings(sentences); }), "sentence 1: has no tokens");
}

TEST(text_encoder, batches_hold_every_sentence_once_beside_others_of_its_length) {
    std::vector<std::vector<nn::token_id>> sentences;
    for (index_t const length : {5, 2, 5, 9, 2, 5, 2, 2}) {
        sentences.emplace_back(length, static_cast<nn::token_id>(sentences.size()));
    }
    auto const batches = batch_sentences(sentences, 7);
    std::vector<std::vector<index_t>> positions;
    for (auto const& batch : batches) {
        positions.push_back(batch.positions);
        EXPECT_EQ(batch.sentences(), std::ssize(batch.positions));
        std::vector<nn::token_id> tokens;
        for (index_t const i : batch.positions) {
            auto const& sentence = sentences[static_cast<std::size_t>(i)];
            tokens.insert(tokens.end(), sentence.begin(), sentence.end());
        }
        EXPECT_EQ(batch.tokens, tokens);
    }
    EXPECT_EQ(positions, (std::vector<std::vector<index_t>>{{1, 4, 6}, {7}, {0}, {2}, {5}, {3}}));
    EXPECT_TRUE(batch_sentences({}).empty());
}

TEST_P(image_encoder_of, threads_do_not_change_a_bit) {
    thread_team one(1), three(3);
    matrix const images = some_images(model_, 40);
    EXPECT_EQ(model_.logits(model_.forward(images, one), one), model_.logits(model_.forward(images, three), three));
}

} // namespace
} // namespace detent

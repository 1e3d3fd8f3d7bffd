// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <cmath>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "detent/model/encoder_configuration.hpp"
#include "io/failure_message.hpp"

namespace detent {
namespace {

nlohmann::json hugging_face(std::string const& type) {
    nlohmann::json json{{"model_type", type},
                        {"hidden_size", 64},
                        {"num_hidden_layers", 3},
                        {"num_attention_heads", 8},
                        {"intermediate_size", 160}};
    if (type == "bert") {
        json["vocab_size"] = 100;
    }
    if (type == "dinov2") {
        json.erase("intermediate_size"); // which follows from others
    }
    return json;
}

nlohmann::json plain() {
    return {{"image_size", 32},        {"patch_size", 4},   {"in_channels", 3},
            {"embed_dim", 64},         {"depth", 3},        {"num_heads", 8},
            {"mlp_dim", 160},          {"num_classes", 10}, {"pixel_mean", {0, 0.5, -1}},
            {"pixel_std", {0.5, 1, 2}}};
}

void expect_shared_sizes(model_configuration const& c) {
    EXPECT_EQ(c.hidden, 64);
    EXPECT_EQ(c.layers.size(), 3U);
    EXPECT_EQ(c.intermediate, 160);
    EXPECT_EQ(c.heads.heads, 8);
    EXPECT_EQ(c.heads.kv_heads, 8);
    EXPECT_EQ(c.heads.head_dim, 8);
    EXPECT_TRUE(c.qkv_bias && c.output_bias && c.mlp_bias && c.norm_bias);
    EXPECT_EQ(c.norm, nn::norm_kind::layer);
    EXPECT_EQ(c.attention.mask, nn::attention_mask::bidirectional);
    EXPECT_EQ(c.attention.scale, 1 / std::sqrt(8.0));
}

/// Norms before the branches, or behind their sum.
void expect_norms(model_configuration const& c, bool before) {
    EXPECT_EQ(c.norms.input, before);
    EXPECT_EQ(c.norms.sum, !before);
}

} // namespace

TEST(encoder_configuration, missing_fields_take_the_defaults_of_the_family) {
    auto const bert = parse_text_encoder(hugging_face("bert"), "f");
    expect_shared_sizes(bert);
    EXPECT_EQ(bert.vocabulary, 100);
    EXPECT_EQ(bert.max_positions, 512);
    EXPECT_EQ(bert.token_types, 2);
    EXPECT_EQ(bert.gate.kind, nn::activation::gelu);
    EXPECT_EQ(bert.norm_eps, 1e-12F);
    expect_norms(bert, false);

    auto const vit = parse_image_encoder(hugging_face("vit"), "f");
    expect_shared_sizes(vit);
    EXPECT_EQ(vit.readout, image_readout::class_token);
    EXPECT_EQ(vit.image_size, 224);
    EXPECT_EQ(vit.patch_size, 16);
    EXPECT_EQ(vit.channels, 3);
    EXPECT_EQ(vit.patches(), 196);
    EXPECT_EQ(vit.pixels(), 3 * 224 * 224);
    EXPECT_EQ(vit.classes, 2);
    EXPECT_EQ(vit.gate.kind, nn::activation::gelu);
    EXPECT_EQ(vit.norm_eps, 1e-12F);
    expect_norms(vit, true);
    EXPECT_TRUE(vit.pixel_mean.empty() && vit.pixel_std.empty());

    auto const torch = parse_image_encoder(plain(), "f");
    expect_shared_sizes(torch);
    EXPECT_EQ(torch.names.blocks, "transformer.layers.");
    EXPECT_EQ(torch.patches(), 64);
    EXPECT_EQ(torch.classes, 10);
    EXPECT_EQ(torch.gate.kind, nn::activation::relu);
    EXPECT_EQ(torch.norm_eps, 1e-5F);
    expect_norms(torch, false);
    EXPECT_EQ(torch.pixel_mean, (std::vector{0.0F, 0.5F, -1.0F}));
    EXPECT_EQ(torch.pixel_std, (std::vector{0.5F, 1.0F, 2.0F}));
}

TEST(encoder_configuration, fields_are_read) {
    auto json = hugging_face("bert");
    json.merge_patch({{"hidden_act", "gelu_new"},
                      {"layer_norm_eps", 0.25},
                      {"max_position_embeddings", 77},
                      {"type_vocab_size", 1}});
    auto const bert = parse_text_encoder(json, "f");
    EXPECT_EQ(bert.gate.kind, nn::activation::gelu_tanh);
    EXPECT_EQ(bert.norm_eps, 0.25F);
    EXPECT_EQ(bert.max_positions, 77);
    EXPECT_EQ(bert.token_types, 1);

    json = hugging_face("vit");
    json.merge_patch({{"hidden_act", "relu"},
                      {"qkv_bias", false},
                      {"image_size", 12},
                      {"patch_size", 3},
                      {"num_channels", 1},
                      {"id2label", {{"0", "cat"}, {"1", "dog"}, {"2", "owl"}}}});
    auto const vit = parse_image_encoder(json, "f");
    EXPECT_EQ(vit.gate.kind, nn::activation::relu);
    EXPECT_FALSE(vit.qkv_bias);
    EXPECT_EQ(vit.patches(), 16);
    EXPECT_EQ(vit.pixels(), 144);
    EXPECT_EQ(vit.classes, 3);
    json.erase("id2label");
    json["num_labels"] = 7;
    EXPECT_EQ(parse_image_encoder(json, "f").classes, 7);

    json = plain();
    json.merge_patch({{"norm_first", true}, {"activation", "gelu"}, {"layer_norm_eps", 0.5}});
    auto const torch = parse_image_encoder(json, "f");
    expect_norms(torch, true);
    EXPECT_EQ(torch.gate.kind, nn::activation::gelu);
    EXPECT_EQ(torch.norm_eps, 0.5F);
}

TEST(encoder_configuration, roberta_counts_positions_from_behind_the_padding) {
    auto json = hugging_face("bert");
    for (char const* type : {"roberta", "xlm-roberta", "camembert"}) {
        json["model_type"] = type;
        auto const c = parse_text_encoder(json, "f");
        EXPECT_EQ(c.padding, 1);
        EXPECT_EQ(c.position_offset, 2);
        EXPECT_EQ(c.max_positions, 510);
    }
    json["pad_token_id"] = 0;
    EXPECT_EQ(parse_text_encoder(json, "f").position_offset, 1);
    EXPECT_FALSE(parse_text_encoder(hugging_face("bert"), "f").padding);
}

TEST(encoder_configuration, distilbert_and_electra_have_words_of_their_own) {
    nlohmann::json const small{{"model_type", "distilbert"},
                               {"dim", 64},
                               {"n_layers", 3},
                               {"n_heads", 8},
                               {"hidden_dim", 160},
                               {"vocab_size", 100},
                               {"sinusoidal_pos_embds", true}};
    auto const distilbert = parse_text_encoder(small, "f");
    expect_shared_sizes(distilbert);
    expect_norms(distilbert, false);
    EXPECT_EQ(distilbert.token_types, 0);
    EXPECT_EQ(distilbert.norm_eps, 1e-12F);
    EXPECT_EQ(distilbert.max_positions, 512);

    auto json = hugging_face("bert");
    json["model_type"] = "electra";
    EXPECT_EQ(parse_text_encoder(json, "f").embedding_width, 128);
    json["embedding_size"] = 32;
    EXPECT_EQ(parse_text_encoder(json, "f").embedding_width, 32);
}

TEST(encoder_configuration, architectures_say_what_the_class_is_read_from) {
    auto const readout = [](std::string const& type, char const* architecture) {
        auto json = hugging_face(type);
        json["architectures"] = {architecture};
        return parse_image_encoder(json, "f").readout;
    };
    EXPECT_EQ(readout("vit", "ViTForImageClassification"), image_readout::class_token);
    EXPECT_EQ(readout("vit", "ViTModel"), image_readout::none);
    EXPECT_EQ(readout("deit", "DeiTForImageClassification"), image_readout::class_token);
    EXPECT_EQ(readout("deit", "DeiTForImageClassificationWithTeacher"), image_readout::two_tokens);
    EXPECT_EQ(readout("deit", "DeiTForMaskedImageModeling"), image_readout::none);
    EXPECT_EQ(readout("dinov2", "Dinov2ForImageClassification"), image_readout::class_and_patches);
    EXPECT_EQ(readout("dinov2", "Dinov2Model"), image_readout::none);
}

TEST(encoder_configuration, dinov2_derives_the_width_of_its_networks) {
    auto json = hugging_face("dinov2");
    auto const plain = parse_image_encoder(json, "f");
    EXPECT_EQ(plain.intermediate, 256);
    EXPECT_EQ(plain.patch_size, 14);
    EXPECT_EQ(plain.norm_eps, 1e-6F);
    EXPECT_TRUE(plain.norms.input && plain.norms.output && plain.norms.scale && !plain.norms.sum && !plain.gated);
    json.merge_patch({{"use_swiglu_ffn", true}, {"mlp_ratio", 4.5}});
    auto const gated = parse_image_encoder(json, "f");
    EXPECT_EQ(gated.intermediate, 192); // two thirds of 288
    EXPECT_TRUE(gated.gated);
    EXPECT_EQ(gated.gate.kind, nn::activation::silu);
    json["mlp_ratio"] = 4;
    EXPECT_EQ(parse_image_encoder(json, "f").intermediate, 176); // 170 is no multiple of 8
    json["model_type"] = "dinov2_with_registers";
    EXPECT_EQ(parse_image_encoder(json, "f").tokens(), 1 + 4 + 256);
    json["num_register_tokens"] = 0;
    EXPECT_EQ(parse_image_encoder(json, "f").tokens(), 1 + 256);
}

TEST(encoder_configuration, families_are_those_of_text_and_of_images) {
    EXPECT_EQ(encoder_families(),
              (std::vector<std::string>{"bert", "roberta", "xlm-roberta", "camembert", "distilbert", "electra", "vit",
                                        "deit", "dinov2", "dinov2_with_registers"}));
}

TEST(encoder_configuration, what_does_not_change_the_hidden_states_is_passed_over) {
    auto json = hugging_face("bert");
    json.merge_patch({{"attention_probs_dropout_prob", 0.1},
                      {"classifier_dropout", 0.2},
                      {"directionality", "bidi"},
                      {"pooler_type", "first_token_transform"},
                      {"pad_token_id", 0},
                      {"torch_dtype", "float16"},
                      {"id2label", {{"0", "no"}}}});
    EXPECT_NO_THROW(parse_text_encoder(json, "f"));
}

TEST(encoder_configuration, errors_name_file_and_field) {
    struct wrong_field {
        char const* type;  // "" is the dialect without model_type
        char const* patch; // null removes
        char const* message;
    };
    for (auto const& w : std::vector<wrong_field>{
             {"bert", R"({"model_type": null})", "f, field 'model_type': is missing"},
             {"bert", R"({"model_type": "deberta"})",
              "f, field 'model_type': is 'deberta'; supported encoders of text are bert, roberta, xlm-roberta, "
              "camembert, distilbert, electra"},
             {"bert", R"({"vocab_size": null})", "f, field 'vocab_size': is missing"},
             {"bert", R"({"hidden_size": 0})", "f, field 'hidden_size': is 0; expected an integer from 1 to 16777216"},
             {"bert", R"({"num_attention_heads": 7})",
              "f, field 'num_attention_heads': is 7, which does not divide hidden_size 64"},
             {"bert", R"({"hidden_act": "gelu_10"})", "f, field 'hidden_act': is 'gelu_10', which is not supported"},
             {"bert", R"({"layer_norm_eps": -1})", "f, field 'layer_norm_eps': is -1; expected a positive number"},
             {"bert", R"({"type_vocab_size": "two"})",
              "f, field 'type_vocab_size': is \"two\"; expected an integer from 1 to 16777216"},
             {"bert", R"({"is_decoder": true})", "f, field 'is_decoder': is true, which is not supported"},
             {"bert", R"({"position_embedding_type": "relative_key"})",
              "f, field 'position_embedding_type': is 'relative_key'; only 'absolute' is supported"},
             {"vit", R"({"model_type": null})", "f, field 'model_type': is missing"},
             {"bert", R"({"add_cross_attention": true})",
              "f, field 'add_cross_attention': is true, which is not supported"},
             {"bert", R"({"pruned_heads": {"0": [1]}})",
              "f, field 'pruned_heads': is {\"0\":[1]}, which is not understood; it may change what the model "
              "computes"},
             {"bert", R"({"model_type": "roberta", "pad_token_id": 511, "vocab_size": 1000})",
              "f, field 'pad_token_id': is 511, which leaves none of the 512 positions"},
             {"bert", R"({"model_type": "roberta", "pad_token_id": -1})",
              "f, field 'pad_token_id': is no token of the vocabulary, but positions are counted from it"},
             {"bert", R"({"model_type": "electra", "embedding_size": 0})",
              "f, field 'embedding_size': is 0; expected an integer from 1 to 16777216"},
             {"bert", R"({"model_type": "distilbert"})", "f, field 'dim': is missing"},
             {"vit", R"({"model_type": "beit"})",
              "f, field 'model_type': is 'beit'; supported encoders of images are vit, deit, dinov2, "
              "dinov2_with_registers"},
             {"vit", R"({"num_hidden_groups": 2})",
              "f, field 'num_hidden_groups': is 2, which is not understood; it may change what the model computes"},
             {"vit", R"({"image_size": [224, 224]})",
              "f, field 'image_size': is [224,224]; expected an integer from 1 to 65536"},
             {"vit", R"({"patch_size": 15})", "f, field 'patch_size': is 15, which does not divide image_size 224"},
             {"vit", R"({"qkv_bias": 1})", "f, field 'qkv_bias': is 1; expected true or false"},
             {"vit", R"({"id2label": ["cat"]})", "f, field 'id2label': is not a JSON object"},
             {"vit", R"({"id2label": null, "num_labels": 0})",
              "f, field 'num_labels': is 0; expected an integer from 1 to 16777216"},
             {"", R"({"depth": null})", "f, field 'depth': is missing"},
             {"", R"({"embed_dim": null})", "f, field 'model_type': is missing"},
             {"", R"({"num_heads": 5})", "f, field 'num_heads': is 5, which does not divide embed_dim 64"},
             {"", R"({"activation": "cosine"})", "f, field 'activation': is 'cosine', which is not supported"},
             {"", R"({"pixel_mean": null})", "f, field 'pixel_mean': is missing"},
             {"", R"({"pixel_mean": [1, 2]})",
              "f, field 'pixel_mean': is [1,2]; expected a number for each of the 3 channels"},
             {"", R"({"pixel_mean": [1, 2, "x"]})",
              "f, field 'pixel_mean': is [1,2,\"x\"]; expected a number for each of the 3 channels"},
             {"", R"({"pixel_std": [1, 0, 1]})",
              "f, field 'pixel_std': is [1,0,1]; expected a positive number for each of the 3 channels"},
         }) {
        std::string const type = w.type;
        auto json = type.empty() ? plain() : hugging_face(type);
        json.merge_patch(nlohmann::json::parse(w.patch));
        EXPECT_EQ(failure_message([&] {
                      if (type == "bert") {
                          parse_text_encoder(json, "f");
                      } else {
                          parse_image_encoder(json, "f");
                      }
                  }),
                  w.message);
    }
    EXPECT_THROW(parse_text_encoder(nlohmann::json::array(), "f"), error);
    auto labels = hugging_face("vit");
    labels["id2label"] = nlohmann::json::object();
    EXPECT_EQ(failure_message([&] { parse_image_encoder(labels, "f"); }),
              "f, field 'id2label': is {}; expected a name for each class");
}

TEST(encoder_configuration, preprocessors_that_do_something_else_are_errors) {
    auto const message = [](char const* patch) {
        nlohmann::json json{{"image_mean", {0.5, 0.5, 0.5}}, {"image_std", {0.5, 0.5, 0.5}}, {"do_resize", true}};
        json.merge_patch(nlohmann::json::parse(patch));
        auto c = parse_image_encoder(hugging_face("vit"), "f");
        return failure_message([&] { parse_preprocessor(json, "p", c); });
    };
    EXPECT_EQ(message(R"({})"), "");
    EXPECT_EQ(message(R"({"rescale_factor": 0.00392156862745098})"), "");
    EXPECT_EQ(message(R"({"rescale_factor": 1})"), "p, field 'rescale_factor': is not 1 / 255, which is not supported");
    EXPECT_EQ(message(R"({"do_normalize": false})"), "p, field 'do_normalize': is false, which is not supported");
    EXPECT_EQ(message(R"({"do_rescale": false})"), "p, field 'do_rescale': is false, which is not supported");
    EXPECT_EQ(message(R"({"image_std": null})"), "p, field 'image_std': is missing");
}

} // namespace detent

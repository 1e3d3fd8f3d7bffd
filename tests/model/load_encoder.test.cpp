// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <fstream>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "detent/model/load_encoder.hpp"
#include "io/failure_message.hpp"
#include "io/temporary_directory.hpp"
#include "model/random_encoder.hpp"

namespace detent {
namespace {

/// A directory with the checkpoint of an encoder, to be damaged.
class load_encoder_of : public testing::TestWithParam<test::encoder_case> {
protected:
    /// The message of the error that loading gives.
    std::string message() const {
        return failure_message([&] {
            checkpoint_.write(directory_.path());
            if (checkpoint_.configuration.contains("vocab_size")) {
                load_text_encoder(directory_.path());
            } else {
                load_image_encoder(directory_.path());
            }
        });
    }

    std::string about(std::string const& tensor) const {
        return directory_.path().string() + ", tensor '" + tensor + "': ";
    }

    temporary_directory const directory_;
    test::encoder_checkpoint checkpoint_ = GetParam().make();
};
INSTANTIATE_TEST_SUITE_P(, load_encoder_of, testing::ValuesIn(test::encoder_cases()), test::encoder_case_name);

TEST_P(load_encoder_of, every_tensor_but_the_pooler_must_be_there) {
    EXPECT_EQ(message(), "");
    for (auto const& [name, kept] : GetParam().make().tensors) {
        if (name.find("pooler") == std::string::npos) {
            checkpoint_.tensors.erase(name);
            std::string const said = message();
            // Without the tensor that shows the prefix, the other prefix is searched for.
            EXPECT_TRUE(said == about(name) + "is missing" ||
                        said == about(name.substr(checkpoint_.prefix.size())) + "is missing")
                << name << ": " << said;
            checkpoint_.tensors[name] = kept;
        }
    }
}

TEST_P(load_encoder_of, misshapen_and_non_finite_tensors_are_errors) {
    for (auto const& [name, kept] : GetParam().make().tensors) {
        if (name.find("pooler") == std::string::npos) {
            auto& t = checkpoint_.tensors[name];
            t.shape.insert(t.shape.begin(), 1);
            EXPECT_EQ(message().find(about(name) + "has shape [1, "), 0U) << name << ": " << message();
            t.shape = kept.shape;
            t.values.back() = std::numeric_limits<float>::quiet_NaN();
            EXPECT_EQ(message(), about(name) + "holds NaN or infinity");
            t = kept;
        }
    }
}

TEST_P(load_encoder_of, layers_know_their_names) {
    checkpoint_.write(directory_.path());
    bool const text = checkpoint_.configuration.contains("vocab_size");
    block const b =
        text ? load_text_encoder(directory_.path()).blocks[1] : load_image_encoder(directory_.path()).blocks[1];
    std::string const layer = checkpoint_.prefix + checkpoint_.layers + "1.";
    auto const& n = checkpoint_.names;
    auto const parts =
        checkpoint_.stacked
            ? std::vector<std::string>{"self_attn.in_proj.query", "self_attn.in_proj.key", "self_attn.in_proj.value"}
            : std::vector{n.query, n.key, n.value};
    std::vector<std::string> expected{parts[0], parts[1], parts[2], n.output};
    if (checkpoint_.gated) {
        expected.insert(expected.end(), {n.up + ".gate", n.up + ".up"});
    } else {
        expected.push_back(n.up);
    }
    expected.push_back(n.down);
    std::vector<std::string> found;
    for (auto const& group : b.groups()) {
        for (layer_place const place : group) {
            found.push_back(b.linear(place).name);
        }
    }
    ASSERT_EQ(found.size(), expected.size());
    for (std::size_t i = 0; i < found.size(); ++i) {
        EXPECT_EQ(found[i], layer + expected[i]);
    }
}

TEST(load_encoder, prefixes_may_be_missing) {
    temporary_directory const directory;
    auto const bert = test::bert_checkpoint();
    std::vector<nn::token_id> const tokens{3, 1, 4, 1, 5};
    bert.write(directory.path());
    matrix const with = load_text_encoder(directory.path()).forward(tokens);
    bert.write(directory.path(), true);
    auto const bare = load_text_encoder(directory.path());
    EXPECT_EQ(bare.forward(tokens), with);
    EXPECT_EQ(bare.prefix, "");
    EXPECT_EQ(bare.blocks[0].output.name, "encoder.layer.0.attention.output.dense");

    test::vit_checkpoint().write(directory.path(), true);
    EXPECT_EQ(load_image_encoder(directory.path()).blocks[0].mlps.front().up.name,
              "encoder.layer.0.intermediate.dense");
}

TEST(load_encoder, norms_may_have_their_first_names) {
    temporary_directory const directory;
    auto bert = test::bert_checkpoint();
    std::vector<nn::token_id> const tokens{3, 1, 4, 1, 5};
    bert.write(directory.path());
    matrix const expected = load_text_encoder(directory.path()).forward(tokens);
    std::map<std::string, test::encoder_checkpoint::tensor> renamed;
    for (auto const& [name, t] : bert.tensors) {
        bool const norm = name.find("LayerNorm") != std::string::npos;
        std::string const module = name.substr(0, name.rfind('.'));
        renamed[!norm ? name : module + (name.ends_with(".weight") ? ".gamma" : ".beta")] = t;
    }
    bert.tensors = renamed;
    bert.write(directory.path());
    EXPECT_EQ(load_text_encoder(directory.path()).forward(tokens), expected);
    bert.tensors.erase("bert.encoder.layer.1.output.LayerNorm.beta");
    bert.write(directory.path());
    EXPECT_EQ(failure_message([&] { load_text_encoder(directory.path()); }),
              directory.path().string() + ", tensor 'bert.encoder.layer.1.output.LayerNorm.beta': is missing");
}

TEST(load_encoder, tensors_behind_the_hidden_states_are_not_needed_without_classes) {
    temporary_directory const directory;
    auto vit = test::vit_checkpoint();
    vit.configuration["architectures"] = {"ViTModel"};
    vit.tensors.erase("classifier.weight");
    vit.tensors.erase("classifier.bias");
    vit.write(directory.path());
    EXPECT_FALSE(load_image_encoder(directory.path()).classifier);
}

TEST(load_encoder, tensors_that_would_change_the_model_are_errors) {
    temporary_directory const directory;
    auto vit = test::vit_checkpoint();
    vit.add("vit.encoder.layer.1.attention.attention.key.bias", {12});
    vit.write(directory.path());
    EXPECT_EQ(failure_message([&] { load_image_encoder(directory.path()); }),
              directory.path().string() + ", tensor 'vit.encoder.layer.1.attention.attention.key.bias': is there, but "
                                          "config.json has no such bias");
    for (auto const& [tensor, problem] :
         {std::pair{"0.attention.self.distance_embedding.weight", "is no part of the model that config.json describes"},
          std::pair{"2.output.dense.weight", "is of block 2, but config.json has 2 blocks"}}) {
        auto bert = test::bert_checkpoint();
        std::string const name = std::string("bert.encoder.layer.") + tensor;
        bert.add(name, {12, 12});
        bert.write(directory.path());
        EXPECT_EQ(failure_message([&] { load_text_encoder(directory.path()); }),
                  directory.path().string() + ", tensor '" + name + "': " + problem);
    }
    auto torch = test::torch_checkpoint();
    torch.add_norm("transformer.norm");
    torch.write(directory.path());
    EXPECT_EQ(failure_message([&] { load_image_encoder(directory.path()); }),
              directory.path().string() + ", tensor 'transformer.norm.weight': is there, but a norm between blocks and "
                                          "mlp_head is not supported");
}

TEST(load_encoder, a_preprocessor_says_how_to_normalize_pixels) {
    temporary_directory const directory;
    test::vit_checkpoint().write(directory.path());
    auto const file = directory / "preprocessor_config.json";
    std::ofstream(file) << R"({"image_mean": [0.5, 0.25], "image_std": [0.5, 2], "size": 6})";
    auto const model = load_image_encoder(directory.path());
    std::vector<std::uint8_t> const bytes(72, 255);
    matrix const images = model.normalize(bytes);
    EXPECT_FLOAT_EQ(images(0, 35), 1.0F);
    EXPECT_FLOAT_EQ(images(0, 36), 0.375F);
    std::ofstream(file) << R"({"image_mean": [0.5], "image_std": [0.5, 2]})";
    EXPECT_EQ(failure_message([&] { load_image_encoder(directory.path()); }),
              file.string() + ", field 'image_mean': is [0.5]; expected a number for each of the 2 channels");
}

TEST(load_encoder, configurations_of_other_models_are_errors) {
    temporary_directory const directory;
    auto const file = (directory / "config.json").string();
    test::vit_checkpoint().write(directory.path());
    EXPECT_EQ(failure_message([&] { load_text_encoder(directory.path()); }),
              file + ", field 'model_type': is 'vit'; supported encoders of text are bert, roberta, xlm-roberta, "
                     "camembert, distilbert, electra");
    test::bert_checkpoint().write(directory.path());
    EXPECT_EQ(failure_message([&] { load_image_encoder(directory.path()); }),
              file + ", field 'model_type': is 'bert'; supported encoders of images are vit, deit, dinov2, "
                     "dinov2_with_registers");
}

} // namespace
} // namespace detent

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "detent/model/load_encoder.hpp"

#include <fstream>
#include <limits>

#include <gtest/gtest.h>

#include "io/failure_message.hpp"
#include "io/temporary_directory.hpp"
#include "random_encoder.hpp"

namespace detent {
namespace {

/// A directory with the checkpoint of an encoder, to be damaged.
class load_encoder_of : public testing::TestWithParam<test::encoder_checkpoint> {
protected:
    /// The message of the error that loading gives.
    std::string message() const {
        return failure_message([&] {
            checkpoint_.write(directory_.path());
            if (checkpoint_.configuration.value("model_type", "") == "bert") {
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
    test::encoder_checkpoint checkpoint_ = GetParam();
};
INSTANTIATE_TEST_SUITE_P(, load_encoder_of,
                         testing::Values(test::bert_checkpoint(), test::vit_checkpoint(), test::torch_checkpoint()),
                         [](auto const& test) { return test.param.configuration.value("model_type", "torch"); });

TEST_P(load_encoder_of, every_tensor_but_the_pooler_must_be_there) {
    EXPECT_EQ(message(), "");
    for (auto const& [name, kept] : GetParam().tensors) {
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
    for (auto const& [name, kept] : GetParam().tensors) {
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
    auto const names = [](block const& b) {
        std::vector<std::string> result;
        for (auto const& group : b.groups()) {
            for (auto const role : group) {
                result.push_back(b.linear(role).name);
            }
        }
        return result;
    };
    auto const type = checkpoint_.configuration.value("model_type", "");
    block const b = type == "bert" ? load_text_encoder(directory_.path()).blocks[1]
                                   : load_image_encoder(directory_.path()).blocks[1];
    std::string const layer = type == "bert"  ? "bert.encoder.layer.1."
                              : type == "vit" ? "vit.encoder.layer.1."
                                              : "transformer.layers.1.";
    auto const expected =
        type == "bert" ? std::vector<std::string>{"attention.self.query", "attention.self.key", "attention.self.value",
                                                  "attention.output.dense", "intermediate.dense", "output.dense"}
        : type == "vit"
            ? std::vector<std::string>{"attention.attention.query", "attention.attention.key",
                                       "attention.attention.value", "attention.output.dense", "intermediate.dense",
                                       "output.dense"}
            : std::vector<std::string>{"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
                                       "self_attn.out_proj", "linear1", "linear2"};
    auto const found = names(b);
    ASSERT_EQ(found.size(), 6U);
    for (std::size_t i = 0; i < 6; ++i) {
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
    EXPECT_EQ(load_image_encoder(directory.path()).blocks[0].up.name, "encoder.layer.0.intermediate.dense");
}

TEST(load_encoder, tensors_that_would_change_the_model_are_errors) {
    temporary_directory const directory;
    auto vit = test::vit_checkpoint();
    vit.add("vit.encoder.layer.1.attention.attention.key.bias", {12});
    vit.write(directory.path());
    EXPECT_EQ(failure_message([&] { load_image_encoder(directory.path()); }),
              directory.path().string() + ", tensor 'vit.encoder.layer.1.attention.attention.key.bias': is there, but "
                                          "config.json has no such bias");
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
              file.string() +
                  ", field 'image_mean': is [0.5]; expected a number for each of the 2 channels");
}

TEST(load_encoder, configurations_of_other_models_are_errors) {
    temporary_directory const directory;
    auto const file = (directory / "config.json").string();
    test::vit_checkpoint().write(directory.path());
    EXPECT_EQ(failure_message([&] { load_text_encoder(directory.path()); }),
              file + ", field 'model_type': is 'vit'; the only encoder of text supported is bert");
    test::bert_checkpoint().write(directory.path());
    EXPECT_EQ(failure_message([&] { load_image_encoder(directory.path()); }),
              file + ", field 'model_type': is 'bert'; the only encoder of images supported is vit");
}

} // namespace
} // namespace detent

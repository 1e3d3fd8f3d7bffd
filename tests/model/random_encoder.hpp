// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <map>
#include <ostream>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "detent/io/safetensors.hpp"

namespace detent::test {

/// How the tensors of a block are called.
struct block_tensors {
    std::string query, key, value, output, attention_norm, up, down, mlp_norm;
};

/// The checkpoint of a small encoder with random weights, in one of the layouts that exist.
struct encoder_checkpoint {
    nlohmann::json configuration;
    std::string prefix;   // of all names but the classifier's
    std::string layers;   // before the number of a block
    block_tensors names;  // after that number
    bool stacked = false; // query, key and value are one tensor
    bool biased = true;   // query, key and value have biases
    bool norms_first = false;
    bool gated = false;  // the tensor called `names.up` holds a gate too
    bool scaled = false; // what branches make is multiplied by layer_scale1 and layer_scale2
    index_t inner = 20;  // features inside the feed-forward network

    struct tensor {
        std::vector<index_t> shape;
        std::vector<float> values;
    };
    std::map<std::string, tensor> tensors;
    std::mt19937 random{11};

    void add(std::string const& name, std::vector<index_t> shape) {
        index_t size = 1;
        for (index_t const extent : shape) {
            size *= extent;
        }
        // The weights of norms are near 1, as in real models.
        bool const norm = shape.size() == 1 && name.ends_with(".weight");
        std::normal_distribution<float> normal(norm ? 1.0F : 0.0F, shape.size() == 1 ? 0.3F : 0.4F);
        tensor t{std::move(shape), {}};
        for (index_t i = 0; i < size; ++i) {
            t.values.push_back(normal(random));
        }
        tensors[name] = std::move(t);
    }

    void add_norm(std::string const& name, index_t features = 12) {
        add(name + ".weight", {features});
        add(name + ".bias", {features});
    }

    void add_linear(std::string const& name, index_t out, index_t in, bool with_bias = true) {
        add(name + ".weight", {out, in});
        if (with_bias) {
            add(name + ".bias", {out});
        }
    }

    void add_blocks() {
        for (index_t i = 0; i < 2; ++i) {
            std::string const layer = prefix + layers + std::to_string(i) + ".";
            if (stacked) {
                add(layer + "self_attn.in_proj_weight", {36, 12});
                add(layer + "self_attn.in_proj_bias", {36});
            } else {
                for (auto const& name : {names.query, names.key, names.value}) {
                    add_linear(layer + name, 12, 12, biased);
                }
            }
            add_linear(layer + names.output, 12, 12);
            add_norm(layer + names.attention_norm);
            add_linear(layer + names.up, gated ? 2 * inner : inner, 12);
            add_linear(layer + names.down, 12, inner);
            add_norm(layer + names.mlp_norm);
            if (scaled) {
                add(layer + "layer_scale1.lambda1", {12});
                add(layer + "layer_scale2.lambda1", {12});
            }
        }
    }

    /// Gives all tensors that begin with the prefix another one.
    void rename(std::string const& from, std::string const& to) {
        std::map<std::string, tensor> renamed;
        for (auto& [name, t] : tensors) {
            renamed[name.starts_with(from) ? to + name.substr(from.size()) : name] = std::move(t);
        }
        tensors = std::move(renamed);
        prefix = to;
    }

    /// Writes `config.json` and `model.safetensors`, names without the prefix if `bare`.
    void write(std::filesystem::path const& directory, bool bare = false) const {
        std::ofstream(directory / "config.json") << configuration;
        io::safetensors_writer writer;
        for (auto const& [name, t] : tensors) {
            auto const* bytes = reinterpret_cast<std::uint8_t const*>(t.values.data());
            std::size_t const skipped = bare && name.starts_with(prefix) ? prefix.size() : 0;
            writer.add(name.substr(skipped), io::dtype::f32, t.shape, {bytes, t.values.size() * sizeof(float)});
        }
        writer.save(directory / "model.safetensors");
    }
};

/// A small BERT of two blocks, with tensors nobody needs.
/// A checkpoint made when a test needs it.
struct encoder_case {
    std::string name;
    std::function<encoder_checkpoint()> make;

    friend std::ostream& operator<<(std::ostream& out, encoder_case const& c) { return out << c.name; }
};

inline std::string encoder_case_name(testing::TestParamInfo<encoder_case> const& test) { return test.param.name; }

inline encoder_checkpoint bert_checkpoint() {
    encoder_checkpoint c{.configuration = {{"model_type", "bert"},
                                           {"vocab_size", 19},
                                           {"hidden_size", 12},
                                           {"num_hidden_layers", 2},
                                           {"num_attention_heads", 3},
                                           {"intermediate_size", 20},
                                           {"hidden_act", "gelu"},
                                           {"layer_norm_eps", 1e-5},
                                           {"max_position_embeddings", 10},
                                           {"type_vocab_size", 3}},
                         .prefix = "bert.",
                         .layers = "encoder.layer.",
                         .names = {"attention.self.query", "attention.self.key", "attention.self.value",
                                   "attention.output.dense", "attention.output.LayerNorm", "intermediate.dense",
                                   "output.dense", "output.LayerNorm"},
                         .tensors = {}};
    c.add("bert.embeddings.word_embeddings.weight", {19, 12});
    c.add("bert.embeddings.position_embeddings.weight", {10, 12});
    c.add("bert.embeddings.token_type_embeddings.weight", {3, 12});
    c.add_norm("bert.embeddings.LayerNorm");
    c.add_linear("bert.pooler.dense", 12, 12);
    c.add_blocks();
    return c;
}

/// RoBERTa's names and positions, of which the first that counts is behind token 3, which pads.
inline encoder_checkpoint roberta_checkpoint() {
    encoder_checkpoint c = bert_checkpoint();
    c.configuration["model_type"] = "roberta";
    c.configuration["pad_token_id"] = 3;
    c.configuration["max_position_embeddings"] = 14;
    c.rename("bert.", "roberta.");
    c.add("roberta.embeddings.position_embeddings.weight", {14, 12});
    return c;
}

/// ELECTRA with embeddings of 8 features.
inline encoder_checkpoint electra_checkpoint() {
    encoder_checkpoint c = bert_checkpoint();
    c.configuration["model_type"] = "electra";
    c.configuration["embedding_size"] = 8;
    c.rename("bert.", "electra.");
    c.add("electra.embeddings.word_embeddings.weight", {19, 8});
    c.add("electra.embeddings.position_embeddings.weight", {10, 8});
    c.add("electra.embeddings.token_type_embeddings.weight", {3, 8});
    c.add_norm("electra.embeddings.LayerNorm", 8);
    c.add_linear("electra.embeddings_project", 12, 8);
    return c;
}

/// DistilBERT, which has names of its own and no types of tokens.
inline encoder_checkpoint distilbert_checkpoint() {
    encoder_checkpoint c{.configuration = {{"model_type", "distilbert"},
                                           {"vocab_size", 19},
                                           {"dim", 12},
                                           {"n_layers", 2},
                                           {"n_heads", 3},
                                           {"hidden_dim", 20},
                                           {"activation", "gelu"},
                                           {"max_position_embeddings", 10}},
                         .prefix = "distilbert.",
                         .layers = "transformer.layer.",
                         .names = {"attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin",
                                   "sa_layer_norm", "ffn.lin1", "ffn.lin2", "output_layer_norm"},
                         .tensors = {}};
    c.add("distilbert.embeddings.word_embeddings.weight", {19, 12});
    c.add("distilbert.embeddings.position_embeddings.weight", {10, 12});
    c.add_norm("distilbert.embeddings.LayerNorm");
    c.add_blocks();
    return c;
}

/// A small ViT of Hugging Face: images of 6 x 6 pixels and 2 channels, patches of 2 x 2, 5 classes.
inline encoder_checkpoint vit_checkpoint() {
    encoder_checkpoint c{.configuration = {{"model_type", "vit"},
                                           {"hidden_size", 12},
                                           {"num_hidden_layers", 2},
                                           {"num_attention_heads", 3},
                                           {"intermediate_size", 20},
                                           {"hidden_act", "gelu_new"},
                                           {"layer_norm_eps", 1e-3},
                                           {"image_size", 6},
                                           {"patch_size", 2},
                                           {"num_channels", 2},
                                           {"qkv_bias", false},
                                           {"id2label", {{"0", "a"}, {"1", "b"}, {"2", "c"}, {"3", "d"}, {"4", "e"}}}},
                         .prefix = "vit.",
                         .layers = "encoder.layer.",
                         .names = {"attention.attention.query", "attention.attention.key", "attention.attention.value",
                                   "attention.output.dense", "layernorm_before", "intermediate.dense", "output.dense",
                                   "layernorm_after"},
                         .biased = false,
                         .norms_first = true,
                         .tensors = {}};
    c.add("vit.embeddings.cls_token", {1, 1, 12});
    c.add("vit.embeddings.position_embeddings", {1, 10, 12});
    c.add("vit.embeddings.patch_embeddings.projection.weight", {12, 2, 2, 2});
    c.add("vit.embeddings.patch_embeddings.projection.bias", {12});
    c.add_blocks();
    c.add_norm("vit.layernorm");
    c.add_linear("classifier", 5, 12);
    return c;
}

/// DeiT, which reads the class from two tokens.
inline encoder_checkpoint deit_checkpoint() {
    encoder_checkpoint c = vit_checkpoint();
    c.configuration["model_type"] = "deit";
    c.configuration["architectures"] = {"DeiTForImageClassificationWithTeacher"};
    c.rename("vit.", "deit.");
    c.add("deit.embeddings.distillation_token", {1, 1, 12});
    c.add("deit.embeddings.position_embeddings", {1, 11, 12});
    c.tensors.erase("classifier.weight");
    c.tensors.erase("classifier.bias");
    c.add_linear("cls_classifier", 5, 12);
    c.add_linear("distillation_classifier", 5, 12);
    return c;
}

/// DINOv2, with registers and a gate or without both.
inline encoder_checkpoint dinov2_checkpoint(bool registers_and_gate) {
    std::string const type = registers_and_gate ? "dinov2_with_registers" : "dinov2";
    encoder_checkpoint c = vit_checkpoint();
    c.configuration["model_type"] = type;
    c.configuration.erase("intermediate_size");
    c.configuration["mlp_ratio"] = 2;
    c.configuration["use_swiglu_ffn"] = registers_and_gate;
    std::erase_if(c.tensors, [](auto const& t) { return t.first.find("encoder.layer.") != std::string::npos; });
    c.rename("vit.", type + ".");
    c.names.attention_norm = "norm1";
    c.names.mlp_norm = "norm2";
    c.names.up = registers_and_gate ? "mlp.weights_in" : "mlp.fc1";
    c.names.down = registers_and_gate ? "mlp.weights_out" : "mlp.fc2";
    c.gated = registers_and_gate;
    c.inner = registers_and_gate ? 16 : 24;
    c.scaled = true;
    c.add_blocks();
    c.add("classifier.weight", {5, 24});
    if (registers_and_gate) {
        c.configuration["num_register_tokens"] = 2;
        c.add(type + ".embeddings.register_tokens", {1, 2, 12});
    }
    return c;
}

/// The same sizes with PyTorch's nn.TransformerEncoderLayer.
inline encoder_checkpoint torch_checkpoint(bool norms_first = false) {
    encoder_checkpoint c{.configuration = {{"image_size", 6},
                                           {"patch_size", 2},
                                           {"in_channels", 2},
                                           {"embed_dim", 12},
                                           {"depth", 2},
                                           {"num_heads", 3},
                                           {"mlp_dim", 20},
                                           {"num_classes", 5},
                                           {"pixel_mean", {0.4, 0.5}},
                                           {"pixel_std", {0.2, 0.25}}},
                         .prefix = "",
                         .layers = "transformer.layers.",
                         .names = {"", "", "", "self_attn.out_proj", "norm1", "linear1", "linear2", "norm2"},
                         .stacked = true,
                         .norms_first = norms_first,
                         .tensors = {}};
    if (norms_first) {
        c.configuration["norm_first"] = true;
        c.configuration["activation"] = "gelu";
    }
    c.add("cls_token", {1, 1, 12});
    c.add("pos_embed", {1, 10, 12});
    c.add("patch_embed.proj.weight", {12, 2, 2, 2});
    c.add("patch_embed.proj.bias", {12});
    c.add_blocks();
    c.add_norm("mlp_head.0");
    c.add_linear("mlp_head.1", 5, 12);
    return c;
}

inline std::vector<encoder_case> text_encoder_cases() {
    return {{"bert", bert_checkpoint},
            {"roberta", roberta_checkpoint},
            {"electra", electra_checkpoint},
            {"distilbert", distilbert_checkpoint}};
}

inline std::vector<encoder_case> image_encoder_cases() {
    return {{"vit", vit_checkpoint},
            {"torch", [] { return torch_checkpoint(); }},
            {"torch_norms_first", [] { return torch_checkpoint(true); }},
            {"deit", deit_checkpoint},
            {"dinov2", [] { return dinov2_checkpoint(false); }},
            {"dinov2_with_registers", [] { return dinov2_checkpoint(true); }}};
}

/// All of them.
inline std::vector<encoder_case> encoder_cases() {
    auto all = text_encoder_cases();
    std::ranges::move(image_encoder_cases(), std::back_inserter(all));
    return all;
}

} // namespace detent::test

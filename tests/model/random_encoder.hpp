// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <map>
#include <ostream>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "detent/io/safetensors.hpp"
#include "detent/nn/tokens.hpp"

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

    void add_norm(std::string const& name) {
        add(name + ".weight", {12});
        add(name + ".bias", {12});
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
            add_linear(layer + names.up, 20, 12);
            add_linear(layer + names.down, 12, 20);
            add_norm(layer + names.mlp_norm);
        }
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

inline void PrintTo(encoder_checkpoint const& c, std::ostream* out) { *out << c.configuration; }

/// A small BERT of two blocks, with tensors nobody needs.
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

/// The same encoders one number at a time in double, straight from their definition and the names of their tensors.
class reference_encoder {
public:
    using numbers = std::vector<double>;
    using states = std::vector<numbers>; // of the tokens of one sequence

    explicit reference_encoder(encoder_checkpoint checkpoint) : c_(std::move(checkpoint)) {
        auto const& json = c_.configuration;
        eps_ = json.value("layer_norm_eps", 1e-5);
        activation_ = json.contains("hidden_act") ? json.at("hidden_act").get<std::string>()
                                                  : json.value("activation", "relu");
    }

    /// BERT's hidden states of one sequence after the last block.
    states text(std::vector<nn::token_id> const& tokens, std::vector<nn::token_id> const& types) const {
        states x;
        for (std::size_t t = 0; t < tokens.size(); ++t) {
            numbers state(12);
            for (std::size_t j = 0; j < 12; ++j) {
                state[j] = at("bert.embeddings.word_embeddings.weight", static_cast<std::size_t>(tokens[t]) * 12 + j) +
                           at("bert.embeddings.position_embeddings.weight", t * 12 + j) +
                           at("bert.embeddings.token_type_embeddings.weight",
                              static_cast<std::size_t>(types[t]) * 12 + j);
            }
            x.push_back(norm("bert.embeddings.LayerNorm", state));
        }
        return blocks(std::move(x));
    }

    /// The logits of one image, pixels[row][column][channel].
    numbers image(std::vector<std::vector<numbers>> const& pixels) const {
        bool const torch = c_.stacked;
        std::string const embeddings = torch ? "" : "vit.embeddings.";
        std::string const projection = embeddings + (torch ? "patch_embed.proj" : "patch_embeddings.projection");
        std::string const positions = embeddings + (torch ? "pos_embed" : "position_embeddings");
        states x{numbers(12)};
        for (std::size_t j = 0; j < 12; ++j) {
            x[0][j] = at(embeddings + "cls_token", j) + at(positions, j);
        }
        for (std::size_t down = 0; down < 3; ++down) {
            for (std::size_t right = 0; right < 3; ++right) {
                numbers state(12);
                for (std::size_t j = 0; j < 12; ++j) {
                    state[j] = at(projection + ".bias", j) + at(positions, x.size() * 12 + j);
                    for (std::size_t channel = 0; channel < 2; ++channel) {
                        for (std::size_t r = 0; r < 2; ++r) {
                            for (std::size_t s = 0; s < 2; ++s) {
                                state[j] += at(projection + ".weight", ((j * 2 + channel) * 2 + r) * 2 + s) *
                                            pixels[down * 2 + r][right * 2 + s][channel];
                            }
                        }
                    }
                }
                x.push_back(state);
            }
        }
        x = blocks(std::move(x));
        return linear(torch ? "mlp_head.1" : "classifier", norm(torch ? "mlp_head.0" : "vit.layernorm", x[0]));
    }

private:
    double at(std::string const& name, std::size_t i) const { return double(c_.tensors.at(name).values.at(i)); }

    states blocks(states x) const {
        for (int i = 0; i < 2; ++i) {
            std::string const layer = c_.prefix + c_.layers + std::to_string(i) + ".";
            auto const branch = [&](std::string const& norm_name, auto const& f) {
                states before = x;
                if (c_.norms_first) {
                    for (auto& state : before) {
                        state = norm(layer + norm_name, state);
                    }
                }
                states const made = f(before);
                for (std::size_t t = 0; t < x.size(); ++t) {
                    for (std::size_t j = 0; j < 12; ++j) {
                        x[t][j] += made[t][j];
                    }
                    if (!c_.norms_first) {
                        x[t] = norm(layer + norm_name, x[t]);
                    }
                }
            };
            branch(c_.names.attention_norm, [&](states const& a) { return attention(layer, a); });
            branch(c_.names.mlp_norm, [&](states m) {
                for (auto& state : m) {
                    numbers hidden = linear(layer + c_.names.up, state);
                    for (double& h : hidden) {
                        h = activate(h);
                    }
                    state = linear(layer + c_.names.down, hidden);
                }
                return m;
            });
        }
        return x;
    }

    states attention(std::string const& layer, states const& a) const {
        states q, k, v;
        for (auto const& state : a) {
            if (c_.stacked) {
                auto const part = [&](std::size_t first) {
                    return product(layer + "self_attn.in_proj_weight", layer + "self_attn.in_proj_bias", state, first,
                                   12);
                };
                q.push_back(part(0));
                k.push_back(part(12));
                v.push_back(part(24));
            } else {
                q.push_back(linear(layer + c_.names.query, state));
                k.push_back(linear(layer + c_.names.key, state));
                v.push_back(linear(layer + c_.names.value, state));
            }
        }
        states made;
        for (auto const& query : q) {
            numbers context(12, 0.0);
            for (std::size_t head = 0; head < 12; head += 4) {
                numbers weights;
                double sum = 0;
                for (auto const& key : k) {
                    double score = 0;
                    for (std::size_t d = head; d < head + 4; ++d) {
                        score += query[d] * key[d];
                    }
                    weights.push_back(std::exp(score / 2)); // 2 = sqrt(head_dim)
                    sum += weights.back();
                }
                for (std::size_t t = 0; t < v.size(); ++t) {
                    for (std::size_t d = head; d < head + 4; ++d) {
                        context[d] += weights[t] / sum * v[t][d];
                    }
                }
            }
            made.push_back(linear(layer + c_.names.output, context));
        }
        return made;
    }

    double activate(double x) const {
        if (activation_ == "relu") {
            return x > 0 ? x : 0;
        }
        if (activation_ == "gelu_new") {
            return 0.5 * x * (1 + std::tanh(std::sqrt(2 / std::acos(-1.0)) * (x + 0.044715 * x * x * x)));
        }
        return 0.5 * x * std::erfc(-x / std::sqrt(2.0));
    }

    numbers norm(std::string const& name, numbers x) const {
        double mean = 0, variance = 0;
        for (double const v : x) {
            mean += v / 12;
        }
        for (double const v : x) {
            variance += (v - mean) * (v - mean) / 12;
        }
        for (std::size_t j = 0; j < 12; ++j) {
            x[j] = (x[j] - mean) / std::sqrt(variance + eps_) * at(name + ".weight", j) + at(name + ".bias", j);
        }
        return x;
    }

    numbers linear(std::string const& name, numbers const& x) const {
        auto const size = c_.tensors.at(name + ".weight").values.size();
        return product(name + ".weight", name + ".bias", x, 0, size / x.size());
    }

    numbers product(std::string const& weight, std::string const& bias, numbers const& x, std::size_t first,
                    std::size_t count) const {
        numbers y;
        for (std::size_t o = first; o < first + count; ++o) {
            double sum = c_.tensors.contains(bias) ? at(bias, o) : 0;
            for (std::size_t j = 0; j < x.size(); ++j) {
                sum += at(weight, o * x.size() + j) * x[j];
            }
            y.push_back(sum);
        }
        return y;
    }

    encoder_checkpoint c_;
    double eps_ = 0;
    std::string activation_;
};

} // namespace detent::test

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cmath>
#include <map>
#include <random>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "detent/model/decoder.hpp"

namespace detent::test {

/// A small LLaMA `config.json`: grouped queries, heads larger than hidden / heads, untied.
inline nlohmann::json llama_json() {
    return {{"model_type", "llama"},
            {"vocab_size", 19},
            {"hidden_size", 12},
            {"num_hidden_layers", 2},
            {"num_attention_heads", 4},
            {"num_key_value_heads", 2},
            {"head_dim", 6},
            {"intermediate_size", 20},
            {"max_position_embeddings", 40},
            {"rms_norm_eps", 1e-5},
            {"rope_theta", 500.0},
            {"attention_bias", true},
            {"mlp_bias", true},
            {"tie_word_embeddings", false}};
}

/// A small OPT `config.json`, tied.
inline nlohmann::json opt_json() {
    return {{"model_type", "opt"},
            {"vocab_size", 19},
            {"hidden_size", 12},
            {"num_hidden_layers", 2},
            {"num_attention_heads", 3},
            {"ffn_dim", 20},
            {"activation_function", "gelu"},
            {"max_position_embeddings", 40}};
}

/// Random weights, kept by name so that a reference can read them.
struct random_weights {
    std::mt19937 random{7};
    std::map<std::string, matrix> tensors;

    matrix tensor(std::string const& name, extents shape) {
        // The weights of norms are near 1, as in real models.
        float const mean = name.find("norm") != std::string::npos && name.ends_with(".weight") ? 1.0F : 0.0F;
        std::normal_distribution<float> normal(mean, shape.cols == 1 ? 0.3F : 0.4F);
        return tensors[name] = matrix::NullaryExpr(shape.rows, shape.cols, [&] { return normal(random); });
    }

    linear_layer linear(std::string const& name, extents shape, bool biased) {
        linear_layer layer{.name = name, .weight = tensor(name + ".weight", shape), .bias = {}};
        if (biased) {
            layer.bias = tensor(name + ".bias", {shape.rows, 1});
        }
        return layer;
    }
};

/// The same model one token at a time in double, straight from its definition.
class reference_decoder {
public:
    reference_decoder(model_configuration configuration, std::string prefix, std::map<std::string, matrix> weights)
        : c_(std::move(configuration)), prefix_(std::move(prefix)), weights_(std::move(weights)) {}

    /// The logits of every token of one sequence.
    std::vector<std::vector<double>> logits(std::vector<nn::token_id> const& tokens) const {
        bool const llama = c_.family == model_family::llama;
        auto const count = tokens.size();
        std::vector<std::vector<double>> x(count), logits;
        for (std::size_t t = 0; t < count; ++t) {
            x[t] = row("embed_tokens.weight", tokens[t]);
            if (!llama) {
                add(x[t], row("embed_positions.weight", static_cast<index_t>(t) + 2));
            }
        }
        for (index_t i = 0; i < c_.layers; ++i) {
            std::string const layer = "layers." + std::to_string(i) + ".";
            std::string const attention = layer + "self_attn.";
            std::string const mlp = llama ? layer + "mlp." : layer;
            std::vector<std::vector<double>> keys, values;
            for (std::size_t t = 0; t < count; ++t) {
                auto const a = norm(layer + (llama ? "input_layernorm" : "self_attn_layer_norm"), x[t]);
                auto q = linear(attention + "q_proj", a);
                keys.push_back(linear(attention + "k_proj", a));
                values.push_back(linear(attention + "v_proj", a));
                if (llama) {
                    rotate(q, t);
                    rotate(keys.back(), t);
                }
                add(x[t], linear(attention + (llama ? "o_proj" : "out_proj"), attend(q, keys, values)));

                auto const m = norm(layer + (llama ? "post_attention_layernorm" : "final_layer_norm"), x[t]);
                auto h = linear(mlp + (llama ? "up_proj" : "fc1"), m);
                auto const gate = llama ? linear(mlp + "gate_proj", m) : h;
                for (std::size_t j = 0; j < h.size(); ++j) {
                    h[j] = llama ? h[j] * gate[j] / (1 + std::exp(-gate[j]))
                                 : 0.5 * h[j] * std::erfc(-h[j] / std::sqrt(2.0));
                }
                add(x[t], linear(mlp + (llama ? "down_proj" : "fc2"), h));
            }
        }
        for (auto const& state : x) {
            auto const last = norm(llama ? "norm" : "final_layer_norm", state);
            logits.push_back(
                product(weights_.at(c_.tied_embeddings ? prefix_ + "embed_tokens.weight" : "lm_head.weight"), last));
        }
        return logits;
    }

private:
    using numbers = std::vector<double>;

    static void add(numbers& x, numbers const& y) {
        for (std::size_t j = 0; j < x.size(); ++j) {
            x[j] += y[j];
        }
    }

    static numbers product(matrix const& w, numbers const& x) {
        numbers y;
        for (index_t o = 0; o < w.rows(); ++o) {
            double sum = 0;
            for (index_t j = 0; j < w.cols(); ++j) {
                sum += double(w(o, j)) * x[static_cast<std::size_t>(j)];
            }
            y.push_back(sum);
        }
        return y;
    }

    numbers row(std::string const& name, index_t r) const {
        matrix const& w = weights_.at(prefix_ + name);
        return {w.row(r).data(), w.row(r).data() + w.cols()};
    }

    numbers linear(std::string const& name, numbers const& x) const {
        auto y = product(weights_.at(prefix_ + name + ".weight"), x);
        if (auto const bias = weights_.find(prefix_ + name + ".bias"); bias != weights_.end()) {
            add(y, {bias->second.data(), bias->second.data() + bias->second.size()});
        }
        return y;
    }

    numbers norm(std::string const& name, numbers x) const {
        double const n = double(x.size());
        double mean = 0;
        double variance = 0;
        if (c_.family == model_family::opt) {
            for (double const v : x) {
                mean += v / n;
            }
        }
        for (double const v : x) {
            variance += (v - mean) * (v - mean) / n;
        }
        matrix const& weight = weights_.at(prefix_ + name + ".weight");
        for (std::size_t j = 0; j < x.size(); ++j) {
            x[j] = (x[j] - mean) / std::sqrt(variance + double(c_.norm_eps)) * weight(static_cast<index_t>(j), 0);
            if (c_.family == model_family::opt) {
                x[j] += weights_.at(prefix_ + name + ".bias")(static_cast<index_t>(j), 0);
            }
        }
        return x;
    }

    void rotate(numbers& x, std::size_t position) const {
        auto const hd = static_cast<std::size_t>(c_.heads.head_dim);
        for (std::size_t head = 0; head < x.size(); head += hd) {
            for (std::size_t i = 0; i < hd / 2; ++i) {
                double const angle = double(position) * std::pow(c_.rope_theta, -2.0 * double(i) / double(hd));
                double const x1 = x[head + i], x2 = x[head + i + hd / 2];
                x[head + i] = x1 * std::cos(angle) - x2 * std::sin(angle);
                x[head + i + hd / 2] = x2 * std::cos(angle) + x1 * std::sin(angle);
            }
        }
    }

    numbers attend(numbers const& q, std::vector<numbers> const& keys, std::vector<numbers> const& values) const {
        auto const hd = static_cast<std::size_t>(c_.heads.head_dim);
        numbers context(q.size(), 0.0);
        for (std::size_t head = 0; head < q.size() / hd; ++head) {
            std::size_t const kv = head / static_cast<std::size_t>(c_.heads.heads / c_.heads.kv_heads);
            numbers weights;
            double sum = 0;
            for (auto const& key : keys) {
                double score = 0;
                for (std::size_t d = 0; d < hd; ++d) {
                    score += q[head * hd + d] * key[kv * hd + d];
                }
                weights.push_back(std::exp(score / std::sqrt(double(hd))));
                sum += weights.back();
            }
            for (std::size_t t = 0; t < values.size(); ++t) {
                for (std::size_t d = 0; d < hd; ++d) {
                    context[head * hd + d] += weights[t] / sum * values[t][kv * hd + d];
                }
            }
        }
        return context;
    }

    model_configuration c_;
    std::string prefix_;
    std::map<std::string, matrix> weights_;
};

/// A decoder with random weights.
inline decoder random_decoder(nlohmann::json const& json) {
    random_weights source;
    return assemble_decoder(parse_configuration(json, "config.json"), "", source);
}

/// Ids below 19.
inline std::vector<nn::token_id> some_tokens(index_t count) {
    std::vector<nn::token_id> tokens;
    for (index_t t = 0; t < count; ++t) {
        tokens.push_back(static_cast<nn::token_id>((t * t + 5 * t + 3) % 19));
    }
    return tokens;
}

} // namespace detent::test

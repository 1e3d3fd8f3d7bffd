// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cmath>
#include <cstddef>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "detent/model/assemble_decoder.hpp"
#include "detent/model/configuration.hpp"
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
    std::mt19937 random{7}, random_of_head{8}; // so that blocks do not depend on what is behind them
    std::map<std::string, matrix> tensors;

    matrix tensor(std::string const& name, extents shape) {
        // The weights of norms are near 1, as in real models.
        float const mean = name.find("norm") != std::string::npos && name.ends_with(".weight") ? 1.0F : 0.0F;
        std::normal_distribution<float> normal(mean, shape.cols == 1 ? 0.3F : 0.4F);
        bool const of_head =
            name.starts_with("norm.") || name.starts_with("final_layer_norm.") || name.starts_with("lm_head.");
        auto& from = of_head ? random_of_head : random;
        return tensors[name] = matrix::NullaryExpr(shape.rows, shape.cols, [&] { return normal(from); });
    }

    linear_layer linear(linear_layer layer, extents shape, bool biased) {
        layer.weight = tensor(layer.name + ".weight", shape);
        if (biased) {
            layer.bias = tensor(layer.name + ".bias", {shape.rows, 1});
        }
        return layer;
    }

    bool contains(std::string const&) const { return false; }
};

/// A model like LLaMA or OPT one token at a time in double, straight from its definition.
class reference_decoder {
public:
    reference_decoder(model_configuration configuration, std::string prefix, std::map<std::string, matrix> weights)
        : c_(std::move(configuration)), prefix_(std::move(prefix)), weights_(std::move(weights)) {}

    /// The logits of every token of one sequence.
    std::vector<std::vector<double>> logits(std::vector<nn::token_id> const& tokens) const {
        bool const llama = c_.type == "llama";
        auto const count = tokens.size();
        std::vector<std::vector<double>> x(count), logits;
        for (std::size_t t = 0; t < count; ++t) {
            x[t] = row("embed_tokens.weight", tokens[t]);
            if (!llama) {
                add(x[t], row("embed_positions.weight", static_cast<index_t>(t) + 2));
            }
        }
        for (index_t i = 0; i < std::ssize(c_.layers); ++i) {
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
        if (c_.type == "opt") {
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
            if (c_.type == "opt") {
                x[j] += weights_.at(prefix_ + name + ".bias")(static_cast<index_t>(j), 0);
            }
        }
        return x;
    }

    void rotate(numbers& x, std::size_t position) const {
        auto const hd = static_cast<std::size_t>(c_.heads.head_dim);
        for (std::size_t head = 0; head < x.size(); head += hd) {
            for (std::size_t i = 0; i < hd / 2; ++i) {
                double const angle =
                    double(position) * std::pow(c_.layers.front().rotary->base, -2.0 * double(i) / double(hd));
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
inline decoder random_decoder(model_configuration const& configuration) {
    random_weights source;
    return assemble_decoder(configuration, "", source);
}

inline decoder random_decoder(nlohmann::json const& json) {
    return random_decoder(parse_configuration(json, "config.json"));
}

/// A small decoder of some form, with the name of what is special about it.
struct decoder_form {
    std::string name;
    model_configuration configuration;
};

/// LLaMA's or OPT's configuration with `change` made to it, and names for all that the changes may need.
template <class Change> decoder_form form_like(nlohmann::json const& json, std::string name, Change const& change) {
    decoder_form form{std::move(name), parse_configuration(json, "config.json")};
    auto& names = form.configuration.names;
    names.embedding_norm = "embedding_norm";
    names.project_in = "project_in";
    names.project_out = "project_out";
    names.attention_output_norm = "attention_output_norm";
    names.mlp_output_norm = "mlp_output_norm";
    names.router = "router";
    names.experts = "experts.";
    names.shared_expert = "shared_expert";
    names.shared_gate = "shared_expert_gate";
    change(form.configuration);
    return form;
}

/// Three experts, two for each token, and one more for all of them where `shared` is its width.
inline expert_configuration small_experts(nn::router_form routing, index_t shared = 0) {
    routing.experts_per_token = 2;
    return {.count = 3,
            .intermediate = 10,
            .shared_intermediate = shared,
            .shared_gate = shared > 0,
            .router_bias = shared > 0,
            .bias = true,
            .routing = std::move(routing)};
}

inline std::vector<decoder_form> make_decoder_forms() {
    using config = model_configuration;
    std::vector<decoder_form> all;
    auto const llama = [&](char const* name, auto const& change) {
        all.push_back(form_like(llama_json(), name, change));
    };
    auto const opt = [&](char const* name, auto const& change) { all.push_back(form_like(opt_json(), name, change)); };
    auto const each_layer = [](config& c, auto const& change) {
        for (auto& layer : c.layers) {
            change(layer);
        }
    };
    auto const experts = [&](config& c, expert_configuration e) {
        c.experts = std::move(e);
        each_layer(c, [](layer_configuration& l) { l.experts = true; });
    };
    auto const rotary = [&](config& c, index_t dimensions, bool interleaved) {
        nn::rotary_law law;
        law.base = 300;
        law.dimensions = dimensions;
        law.interleaved = interleaved;
        each_layer(c, [&](layer_configuration& l) { l.rotary = law; });
    };
    llama("gated", [](config&) {});
    opt("plain", [](config&) {});
    opt("plain_relu", [](config& c) { c.gate.kind = nn::activation::relu; });
    llama("gated_gelu_without_biases", [](config& c) {
        c.gate.kind = nn::activation::gelu_tanh;
        c.qkv_bias = c.output_bias = c.mlp_bias = false;
    });
    llama("query_key_norms", [](config& c) { c.query_key_norm = nn::norm_kind::rms; });
    llama("query_key_norms_of_each_head", [](config& c) {
        c.query_key_norm = nn::norm_kind::layer;
        c.head_norm = head_norm_weights::each;
    });
    llama("query_key_norms_of_all_heads", [](config& c) {
        c.query_key_norm = nn::norm_kind::rms;
        c.head_norm = head_norm_weights::all_heads;
    });
    opt("parallel", [&](config& c) {
        c.parallel = true;
        c.learned_positions = false;
        rotary(c, 2, false);
    });
    llama("parallel_shared_norm", [&](config& c) {
        c.parallel = c.shared_norm = true;
        rotary(c, 4, true);
    });
    llama("norms_after", [](config& c) { c.norms = {.input = false, .output = true}; });
    llama("norms_before_and_after", [](config& c) { c.norms = {.input = true, .output = true}; });
    opt("norms_of_sums", [](config& c) {
        c.norms = {.input = false, .sum = true};
        c.final_norm = false;
        c.embedding_width = 8;
    });
    opt("alibi", [](config& c) {
        c.learned_positions = false;
        c.embedding_norm = true;
        c.attention.slopes = {0.5F, 0.25F, 0.125F};
    });
    llama("windows", [](config& c) { c.layers.front().window = 3; });
    llama("sinks", [](config& c) { c.names.sinks = "self_attn.sinks"; });
    llama("soft_caps", [](config& c) {
        c.attention.soft_cap = 1.5;
        c.logit_cap = 4;
    });
    llama("multipliers", [](config& c) {
        c.embedding_multiplier = 2;
        c.residual_multiplier = 0.6;
        c.logit_multiplier = 0.4;
        c.attention.scale = 0.3;
    });
    llama("partial_rotary", [&](config& c) { rotary(c, 4, false); });
    llama("interleaved_rotary", [&](config& c) { rotary(c, 6, true); });
    llama("experts", [&](config& c) { experts(c, small_experts({})); });
    llama("experts_not_renormalized", [&](config& c) {
        experts(c, small_experts({}));
        c.experts->routing.renormalized = false;
    });
    llama("experts_sigmoid_and_shared", [&](config& c) {
        experts(c, small_experts({}, 9));
        c.experts->routing.score = nn::router_score::sigmoid;
        c.experts->routing.factor = 1.5;
    });
    llama("experts_with_limits", [&](config& c) {
        experts(c, small_experts({}));
        c.gate = {.kind = nn::activation::quick_gelu, .limit = 0.7, .up_offset = 1};
    });
    return all;
}

/// Small decoders of every form of block, and of every form of what is around the blocks.
inline std::vector<decoder_form> const& decoder_forms() {
    static auto const all = make_decoder_forms();
    return all;
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

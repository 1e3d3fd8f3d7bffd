// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cmath>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "detent/nn/tokens.hpp"
#include "model/random_encoder.hpp"

namespace detent::test {

/// Encoders one number at a time in double, straight from their definition and the names of their tensors.
class reference_encoder {
public:
    using numbers = std::vector<double>;
    using states = std::vector<numbers>; // of the tokens of one sequence

    explicit reference_encoder(encoder_checkpoint checkpoint) : c_(std::move(checkpoint)) {
        auto const& json = c_.configuration;
        type_ = json.value("model_type", "");
        eps_ = json.value("layer_norm_eps", type_ == "distilbert" ? 1e-12 : 1e-5);
        activation_ =
            json.contains("hidden_act") ? json.at("hidden_act").get<std::string>() : json.value("activation", "relu");
    }

    /// The hidden states of one sequence of text after the last block.
    states text(std::vector<nn::token_id> const& tokens, std::vector<nn::token_id> const& types) const {
        std::string const embeddings = c_.prefix + "embeddings.";
        std::string const types_name = embeddings + "token_type_embeddings.weight";
        states x;
        std::size_t position = 0;
        for (std::size_t t = 0; t < tokens.size(); ++t) {
            std::size_t row = t;
            if (type_ == "roberta") {
                bool const pads = tokens[t] == 3;
                row = pads ? 3 : 4 + position;
                position += pads ? 0U : 1U;
            }
            numbers state(size_of(embeddings + "LayerNorm.weight"));
            for (std::size_t j = 0; j < state.size(); ++j) {
                auto const entry = [&](std::size_t i) { return i * state.size() + j; };
                state[j] = at(embeddings + "word_embeddings.weight", entry(static_cast<std::size_t>(tokens[t]))) +
                           at(embeddings + "position_embeddings.weight", entry(row));
                if (c_.tensors.contains(types_name)) {
                    state[j] += at(types_name, entry(static_cast<std::size_t>(types[t])));
                }
            }
            state = norm(embeddings + "LayerNorm", state);
            x.push_back(type_ == "electra" ? linear(c_.prefix + "embeddings_project", state) : state);
        }
        return blocks(std::move(x));
    }

    /// The logits of one image, pixels[row][column][channel].
    numbers image(std::vector<std::vector<numbers>> const& pixels) const {
        bool const torch = c_.stacked;
        std::string const embeddings = torch ? "" : c_.prefix + "embeddings.";
        std::string const positions = embeddings + (torch ? "pos_embed" : "position_embeddings");
        auto const token = [&](std::string const& name, std::size_t i) {
            numbers state(12);
            for (std::size_t j = 0; j < 12; ++j) {
                state[j] = at(embeddings + name, i * 12 + j);
            }
            return state;
        };
        states x{token("cls_token", 0)};
        if (type_ == "deit") {
            x.push_back(token("distillation_token", 0));
        }
        for (std::size_t down = 0; down < 3; ++down) {
            for (std::size_t right = 0; right < 3; ++right) {
                x.push_back(patch(embeddings + (torch ? "patch_embed.proj" : "patch_embeddings.projection"), pixels,
                                  down * 2, right * 2));
            }
        }
        for (std::size_t t = 0; t < x.size(); ++t) {
            for (std::size_t j = 0; j < 12; ++j) {
                x[t][j] += at(positions, t * 12 + j);
            }
        }
        bool const registers = type_ == "dinov2_with_registers";
        if (registers) { // which have no positions
            x.insert(x.begin() + 1, {token("register_tokens", 0), token("register_tokens", 1)});
        }
        x = blocks(std::move(x));
        for (auto& state : x) {
            state = norm(torch ? "mlp_head.0" : c_.prefix + "layernorm", state);
        }
        return classes(x, registers ? 3 : 1);
    }

private:
    double at(std::string const& name, std::size_t i) const { return double(c_.tensors.at(name).values.at(i)); }

    std::size_t size_of(std::string const& name) const { return c_.tensors.at(name).values.size(); }

    /// What the projection makes of the patch of 2 x 2 pixels and 2 channels at (down, right).
    numbers patch(std::string const& projection, std::vector<std::vector<numbers>> const& pixels, std::size_t down,
                  std::size_t right) const {
        numbers state(12);
        for (std::size_t j = 0; j < 12; ++j) {
            state[j] = at(projection + ".bias", j);
            for (std::size_t channel = 0; channel < 2; ++channel) {
                for (std::size_t r = 0; r < 2; ++r) {
                    for (std::size_t s = 0; s < 2; ++s) {
                        state[j] += at(projection + ".weight", ((j * 2 + channel) * 2 + r) * 2 + s) *
                                    pixels[down + r][right + s][channel];
                    }
                }
            }
        }
        return state;
    }

    /// The logits of the states of an image behind the last norm, its patches from token `first` on.
    numbers classes(states const& x, std::size_t first) const {
        if (type_ == "deit") {
            numbers y = linear("cls_classifier", x[0]);
            numbers const second = linear("distillation_classifier", x[1]);
            for (std::size_t j = 0; j < y.size(); ++j) {
                y[j] = (y[j] + second[j]) / 2;
            }
            return y;
        }
        if (!type_.starts_with("dinov2")) {
            return linear(c_.stacked ? "mlp_head.1" : "classifier", x[0]);
        }
        numbers both = x[0];
        both.resize(24);
        for (std::size_t t = first; t < x.size(); ++t) {
            for (std::size_t j = 0; j < 12; ++j) {
                both[12 + j] += x[t][j] / 9;
            }
        }
        return linear("classifier", both);
    }

    states blocks(states x) const {
        for (int i = 0; i < 2; ++i) {
            std::string const layer = c_.prefix + c_.layers + std::to_string(i) + ".";
            auto const branch = [&](std::string const& norm_name, std::string const& scale, auto const& f) {
                states before = x;
                if (c_.norms_first) {
                    for (auto& state : before) {
                        state = norm(layer + norm_name, state);
                    }
                }
                states const made = f(before);
                for (std::size_t t = 0; t < x.size(); ++t) {
                    for (std::size_t j = 0; j < 12; ++j) {
                        x[t][j] += made[t][j] * (c_.scaled ? at(layer + scale + ".lambda1", j) : 1);
                    }
                    if (!c_.norms_first) {
                        x[t] = norm(layer + norm_name, x[t]);
                    }
                }
            };
            branch(c_.names.attention_norm, "layer_scale1", [&](states const& a) { return attention(layer, a); });
            branch(c_.names.mlp_norm, "layer_scale2", [&](states m) {
                for (auto& state : m) {
                    state = linear(layer + c_.names.down, inside(linear(layer + c_.names.up, state)));
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

    /// What the last layer of a feed-forward network reads, given what the first one made.
    numbers inside(numbers made) const {
        if (c_.gated) { // with SiLU, the gate first
            std::size_t const half = made.size() / 2;
            for (std::size_t j = 0; j < half; ++j) {
                made[j] = made[j] / (1 + std::exp(-made[j])) * made[half + j];
            }
            made.resize(half);
            return made;
        }
        for (double& h : made) {
            h = activate(h);
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
        auto const size = static_cast<double>(x.size());
        for (double const v : x) {
            mean += v / size;
        }
        for (double const v : x) {
            variance += (v - mean) * (v - mean) / size;
        }
        for (std::size_t j = 0; j < x.size(); ++j) {
            x[j] = (x[j] - mean) / std::sqrt(variance + eps_) * at(name + ".weight", j) + at(name + ".bias", j);
        }
        return x;
    }

    numbers linear(std::string const& name, numbers const& x) const {
        return product(name + ".weight", name + ".bias", x, 0, size_of(name + ".weight") / x.size());
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
    std::string type_;
    double eps_ = 0;
    std::string activation_;
};

} // namespace detent::test

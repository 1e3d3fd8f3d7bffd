// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numeric>
#include <optional>
#include <utility>
#include <vector>

#include "detent/model/dense_block.hpp"
#include "nn/finite_differences.hpp"

namespace detent::test {

/// What a block computes, straight from the definitions, in double and one number at a time. Derived classes may round
/// on the way. The experts that tokens meet are chosen in the first run, and are the same in all later ones.
class reference_block {
public:
    virtual ~reference_block() = default;

    /// (token, hidden) to (token, hidden), of so many sequences of equal length.
    matrix64 run(dense_block<double> const& b, matrix64 const& x, index_t sequences) {
        length_ = x.rows() / sequences;
        bool const chosen = next_choice_ > 0;
        next_choice_ = 0;
        matrix64 const a = maybe(b.attention_norms.input, x);
        matrix64 const middle = add(b, b.attention_norms, x, attention(b, round_input(a)));
        matrix64 const& from = b.parallel ? x : middle;
        bool const shares = b.parallel && b.attention_norms.input && !b.mlp_norms.input;
        matrix64 const m = shares ? a : maybe(b.mlp_norms.input, from);
        matrix64 const read = round_input(m);
        matrix64 made = matrix64::Zero(x.rows(), x.cols());
        for (index_t t = 0; t < x.rows(); ++t) {
            std::vector<std::pair<index_t, double>> const shares_of_token = networks(b, m.row(t), chosen);
            for (auto const& [network, share] : shares_of_token) {
                made.row(t) += share * feed_forward(b, b.mlps[static_cast<std::size_t>(network)], read.row(t));
            }
        }
        return add(b, b.mlp_norms, middle, made);
    }

protected:
    /// What linear layers read, and queries, keys and values (token, feature), as attention reads them.
    virtual matrix64 round_input(matrix64 const& x) { return x; }
    virtual matrix64 round_heads(matrix64 const& x) { return x; }
    virtual double round_probability(double p) { return p; }

private:
    static matrix64 linear(dense_linear<double> const& layer, matrix64 const& x) {
        matrix64 y = x * layer.weight.transpose();
        if (layer.bias.size() > 0) {
            y.rowwise() += layer.bias.transpose();
        }
        return y;
    }

    static matrix64 norm(basic_norm_layer<double> const& n, matrix64 x) {
        index_t const width = n.width > 0 ? n.width : x.cols();
        for (index_t t = 0; t < x.rows(); ++t) {
            for (index_t first = 0; first < x.cols(); first += width) {
                auto part = x.row(t).segment(first, width);
                if (n.type == nn::norm_kind::layer) {
                    part.array() -= part.mean();
                }
                if (n.type != nn::norm_kind::scale) {
                    part /= std::sqrt(part.array().square().mean() + n.eps);
                }
                index_t const entry = n.weight.size() == x.cols() ? first : 0;
                if (n.weight.size() > 0) {
                    part.array() *= n.weight.segment(entry, width).transpose().array();
                }
                if (n.bias.size() > 0) {
                    part += n.bias.segment(entry, width).transpose();
                }
            }
        }
        return x;
    }

    static matrix64 maybe(std::optional<basic_norm_layer<double>> const& n, matrix64 const& x) {
        return n ? norm(*n, x) : x;
    }

    static matrix64 add(dense_block<double> const& b, branch_norm_layers<double> const& norms, matrix64 const& x,
                        matrix64 const& made) {
        return maybe(norms.sum, x + b.residual * maybe(norms.output, made));
    }

    static double activation(nn::activation kind, double x) {
        return nn::activate(kind, matrix64(matrix64::Constant(1, 1, x)))(0, 0);
    }

    /// Angles of the law, which has tests of its own; the pairs and their rotation from the definition.
    matrix64 rotated(dense_block<double> const& b, matrix64 x) const {
        if (!b.rotary) {
            return x;
        }
        auto const rotary = nn::rotary_of(*b.rotary, length_);
        index_t const pairs = b.rotary->dimensions / 2;
        for (index_t t = 0; t < x.rows(); ++t) {
            for (index_t head = 0; head < x.cols(); head += b.heads.head_dim) {
                for (index_t i = 0; i < pairs; ++i) {
                    double const angle =
                        static_cast<double>(t % length_) * rotary.frequencies()[static_cast<std::size_t>(i)];
                    // Sines and cosines are kept in float.
                    double const c = static_cast<float>(rotary.factor() * std::cos(angle));
                    double const s = static_cast<float>(rotary.factor() * std::sin(angle));
                    index_t const first = head + (b.rotary->interleaved ? 2 * i : i);
                    index_t const second = b.rotary->interleaved ? first + 1 : first + pairs;
                    double const before = x(t, first);
                    x(t, first) = before * c - x(t, second) * s;
                    x(t, second) = x(t, second) * c + before * s;
                }
            }
        }
        return x;
    }

    matrix64 attention(dense_block<double> const& b, matrix64 const& read) {
        matrix64 const q = round_heads(rotated(b, maybe(b.query_norm, linear(b.query, read))));
        matrix64 const k = round_heads(rotated(b, maybe(b.key_norm, linear(b.key, read))));
        matrix64 const v = round_heads(linear(b.value, read));
        auto const& form = b.attention;
        index_t const hd = b.heads.head_dim;
        matrix64 context = matrix64::Zero(q.rows(), q.cols());
        for (index_t t = 0; t < q.rows(); ++t) {
            index_t const sequence = t / length_ * length_;
            bool const causal = form.mask == nn::attention_mask::causal;
            index_t const first = form.window > 0 ? std::max(sequence, t + 1 - form.window) : sequence;
            index_t const end = causal ? t + 1 : sequence + length_;
            for (index_t h = 0; h < b.heads.heads; ++h) {
                index_t const kv = h / (b.heads.heads / b.heads.kv_heads) * hd;
                auto const head = static_cast<std::size_t>(h);
                vector64 p(end - first);
                for (index_t u = first; u < end; ++u) {
                    double score = form.scale * q.row(t).segment(h * hd, hd).dot(k.row(u).segment(kv, hd));
                    score = form.soft_cap > 0 ? form.soft_cap * std::tanh(score / form.soft_cap) : score;
                    score += form.slopes.empty() ? 0 : double(form.slopes[head]) * static_cast<double>(u - t);
                    p(u - first) = std::exp(score);
                }
                p /= p.sum() + (form.sinks.empty() ? 0 : std::exp(double(form.sinks[head])));
                for (index_t u = first; u < end; ++u) {
                    context.row(t).segment(h * hd, hd) += round_probability(p(u - first)) * v.row(u).segment(kv, hd);
                }
            }
        }
        return linear(b.output, round_input(context));
    }

    /// The networks that a token meets, and what share of their results it gets.
    std::vector<std::pair<index_t, double>> networks(dense_block<double> const& b, matrix64 const& x, bool chosen) {
        std::vector<std::pair<index_t, double>> all;
        if (b.router) {
            matrix64 const logits = linear(*b.router, x); // (1, expert)
            matrix64 scores = logits.array().exp();
            bool const softmax = b.routing.score == nn::router_score::softmax;
            scores = softmax ? matrix64(scores / scores.sum()) : matrix64(scores.array() / (1 + scores.array()));
            if (!chosen) {
                std::vector<index_t> order(static_cast<std::size_t>(scores.cols()));
                std::iota(order.begin(), order.end(), 0);
                std::ranges::sort(order, std::greater{}, [&](index_t e) { return scores(0, e); });
                order.resize(static_cast<std::size_t>(b.routing.experts_per_token));
                choices_.push_back(std::move(order));
            }
            double sum = 0;
            for (index_t const e : choices_[next_choice_++]) {
                all.emplace_back(e, scores(0, e));
                sum += scores(0, e);
            }
            for (auto& [e, share] : all) {
                share *= b.routing.factor / (b.routing.renormalized ? sum : 1);
            }
        }
        if (std::ssize(b.mlps) > b.experts()) {
            double const share = b.shared_gate ? 1 / (1 + std::exp(-linear(*b.shared_gate, x)(0, 0))) : 1;
            all.emplace_back(b.experts(), share);
        }
        return all;
    }

    matrix64 feed_forward(dense_block<double> const& b, feed_forward_layers<dense_linear<double>> const& mlp,
                          matrix64 const& x) {
        matrix64 hidden = linear(mlp.up, x); // (1, intermediate)
        matrix64 const gate = mlp.gate ? linear(*mlp.gate, x) : matrix64{};
        double const limit = b.gate_form.limit > 0 ? b.gate_form.limit : 1e300;
        for (index_t i = 0; i < hidden.cols(); ++i) {
            if (mlp.gate) {
                hidden(0, i) = activation(b.gate_form.kind, std::min(gate(0, i), limit)) *
                               (std::clamp(hidden(0, i), -limit, limit) + b.gate_form.up_offset);
            } else {
                hidden(0, i) = activation(b.gate_form.kind, hidden(0, i));
            }
        }
        return linear(mlp.down, round_input(hidden));
    }

    index_t length_ = 0;                        // of a sequence
    std::vector<std::vector<index_t>> choices_; // of experts, token by token
    std::size_t next_choice_ = 0;
};

} // namespace detent::test

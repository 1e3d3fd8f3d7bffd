// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "detent/model/learned_block.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include <gtest/gtest.h>

#include "detent/grid/fp_grid.hpp"
#include "detent/grid/int_grid.hpp"
#include "model/random_decoder.hpp"
#include "nn/finite_differences.hpp"

namespace detent {
namespace {

using test::matrix64;
using test::vector64;

/// The loss of a quantized block straight from its definition, one number at a time. The first call rounds and keeps
/// the residual of every rounding, whether it clipped, and the zero points; from then on these stay, which makes of it
/// the smooth function whose gradient the straight-through estimator is.
class surrogate_loss {
public:
    surrogate_loss(dense_block<double> floats, any_grid weights, index_t group, std::optional<any_grid> activations,
                   index_t attention_width, matrix64 x, std::vector<matrix64> targets, index_t sequences)
        : floats_(std::move(floats)), weights_(std::move(weights)), group_(group), activations_(std::move(activations)),
          attention_width_(attention_width), x_(std::move(x)), targets_(std::move(targets)), sequences_(sequences) {}

    double operator()(block_parameters<double> const& p) {
        next_ = next_probability_ = 0;
        dense_block<double> b = transformed(p.transform);
        for (linear_role const role : block_roles) {
            if (b[role].weight.size() > 0) {
                auto const& clip = p.clips[static_cast<std::size_t>(role)];
                b[role].weight = round(b[role].weight, weights_, group_, clip ? &*clip : nullptr);
            }
        }
        matrix64 const y = run(b);
        double loss = 0;
        for (auto const& target : targets_) {
            loss += (y - target).array().square().mean();
        }
        return loss;
    }

private:
    struct rounding {
        double zero = 0;
        index_t lowest = 0, highest = 0;
        bool low_is_farther = false;
        std::vector<double> rest; // the residual, or the number that the scale multiplies where it is clipped
        std::vector<bool> clipped;
    };

    matrix64 round(matrix64 const& x, any_grid const& grid, index_t width, learned_clip<double> const* clip) {
        std::vector<double> numbers(grid.table().begin(), grid.table().end());
        std::erase_if(numbers, [](double n) { return std::isnan(n); });
        std::ranges::sort(numbers);
        double const span = numbers.back() - numbers.front();
        matrix64 y(x.rows(), x.cols());
        for (index_t row = 0; row < x.rows(); ++row) {
            for (index_t col = 0; col < x.cols(); col += width) {
                index_t const n = std::min(width, x.cols() - col);
                bool const first = next_ == roundings_.size();
                if (first) {
                    roundings_.emplace_back();
                }
                rounding& r = roundings_[next_++];
                auto const part = x.row(row).segment(col, n);
                if (first) {
                    part.minCoeff(&r.lowest);
                    part.maxCoeff(&r.highest);
                }
                auto const kept = [&](double logit) { return 1 / (1 + std::exp(-logit)); };
                double const low = std::min(0.0, part(r.lowest)) * (clip ? kept(clip->low(row, col / width)) : 1.0);
                double const high = std::max(0.0, part(r.highest)) * (clip ? kept(clip->high(row, col / width)) : 1.0);
                if (first) {
                    r.low_is_farther = -low > high;
                }
                double const s = (grid.has_zero() ? high - low : 2 * (r.low_is_farther ? -low : high)) / span;
                if (first) {
                    double const zero = std::clamp(std::nearbyint(-low / s), numbers.front(), numbers.back());
                    r.zero = grid.has_zero() ? zero : 0;
                }
                for (index_t i = 0; i < n; ++i) {
                    if (first) {
                        remember(r, numbers, part(i) / s + r.zero);
                    }
                    auto const k = static_cast<std::size_t>(i);
                    y(row, col + i) = r.clipped[k] ? s * r.rest[k] : part(i) + s * r.rest[k];
                }
            }
        }
        return y;
    }

    static void remember(rounding& r, std::vector<double> const& numbers, double v) {
        double const nearest = *std::ranges::min_element(numbers, {}, [&](double n) { return std::abs(n - v); });
        auto const beyond = [&](double end, double before) {
            return std::abs(v - before) > 1.5 * std::abs(end - before);
        };
        bool const clipped = (v < numbers.front() && beyond(numbers.front(), numbers[1])) ||
                             (v > numbers.back() && beyond(numbers.back(), numbers[numbers.size() - 2]));
        r.clipped.push_back(clipped);
        r.rest.push_back(clipped ? nearest - r.zero : nearest - v);
    }

    dense_block<double> transformed(equivalent_transform<double> const& t) const {
        dense_block<double> b = floats_;
        auto const scale = [](vector64 const& s, index_t i) { return s.size() > 0 ? s(i) : 1.0; };
        auto const shift = [](vector64 const& d, index_t i) { return d.size() > 0 ? d(i) : 0.0; };
        index_t const hd = b.heads.head_dim, group = b.heads.heads / b.heads.kv_heads;
        auto const of_query = [&](index_t i) { return i / (group * hd) * hd + i % hd; };
        auto const key = [&](index_t c) {
            return scale(t.key_scale, b.rope ? c / hd * (hd / 2) + c % (hd / 2) : c);
        };
        auto const norm = [&](dense_norm<double>& n, vector64 const& s, vector64 const& d) {
            for (index_t i = 0; i < n.weight.size(); ++i) {
                n.weight(i) /= scale(s, i);
                if (n.bias.size() > 0) {
                    n.bias(i) = (n.bias(i) - shift(d, i)) / scale(s, i);
                }
            }
        };
        auto const columns = [&](dense_linear<double>& l, auto const& s, auto const& d) {
            for (index_t i = 0; i < l.weight.rows(); ++i) {
                for (index_t j = 0; j < l.weight.cols(); ++j) {
                    if (l.bias.size() > 0) {
                        l.bias(i) += l.weight(i, j) * d(j);
                    }
                    l.weight(i, j) *= s(j);
                }
            }
        };
        auto const rows = [&](dense_linear<double>& l, auto const& s, auto const& d) {
            for (index_t i = 0; i < l.weight.rows(); ++i) {
                l.weight.row(i) /= s(i);
                if (l.bias.size() > 0) {
                    l.bias(i) = (l.bias(i) - d(i)) / s(i);
                }
            }
        };
        auto const none = [](index_t) { return 0.0; };
        norm(b.attention_norm, t.attention_scale, t.attention_shift);
        norm(b.mlp_norm, t.mlp_scale, t.mlp_shift);
        for (linear_role const role : {linear_role::query, linear_role::key, linear_role::value}) {
            columns(b[role], [&](index_t j) { return scale(t.attention_scale, j); },
                    [&](index_t j) { return shift(t.attention_shift, j); });
        }
        for (linear_role const role : {linear_role::gate, linear_role::up}) {
            columns(b[role], [&](index_t j) { return scale(t.mlp_scale, j); },
                    [&](index_t j) { return shift(t.mlp_shift, j); });
        }
        rows(b[linear_role::value], [&](index_t i) { return scale(t.context_scale, i); },
             [&](index_t i) { return shift(t.context_shift, i); });
        columns(b[linear_role::output], [&](index_t j) { return scale(t.context_scale, of_query(j)); },
                [&](index_t j) { return shift(t.context_shift, of_query(j)); });
        rows(b[linear_role::query], [&](index_t i) { return key(of_query(i)); }, none);
        rows(b[linear_role::key], [&](index_t i) { return 1 / key(i); }, none);
        if (t.hidden_scale.size() > 0) {
            rows(b[linear_role::up], [&](index_t i) { return t.hidden_scale(i); }, none);
            columns(b[linear_role::down], [&](index_t j) { return t.hidden_scale(j); }, none);
        }
        return b;
    }

    /// Rounded, or with the residual of the first call.
    double probability(double p) {
        if (floats_.heads.probability_bits == 0) {
            return p;
        }
        double const steps = std::pow(2, floats_.heads.probability_bits) - 1;
        if (next_probability_ == residuals_.size()) {
            residuals_.push_back(std::round(p * steps) / steps - p);
        }
        return p + residuals_[next_probability_++];
    }

    matrix64 run(dense_block<double> const& b) {
        auto const linear = [&](linear_role role, matrix64 const& x) {
            matrix64 y = x * b[role].weight.transpose();
            if (b[role].bias.size() > 0) {
                y.rowwise() += b[role].bias.transpose();
            }
            return y;
        };
        auto const rounded = [&](matrix64 const& x, index_t width) {
            return activations_ ? round(x, *activations_, width, nullptr) : x;
        };
        auto const norm = [](dense_norm<double> const& n, matrix64 x) {
            for (index_t t = 0; t < x.rows(); ++t) {
                double const mean = n.type == norm_layer::kind::layer ? x.row(t).mean() : 0.0;
                x.row(t).array() -= mean;
                x.row(t) /= std::sqrt(x.row(t).array().square().mean() + n.eps);
                x.row(t).array() *= n.weight.transpose().array();
                if (n.bias.size() > 0) {
                    x.row(t) += n.bias.transpose();
                }
            }
            return x;
        };
        index_t const hd = b.heads.head_dim, length = x_.rows() / sequences_;
        matrix64 const a = rounded(norm(b.attention_norm, x_), x_.cols());
        matrix64 q = linear(linear_role::query, a), k = linear(linear_role::key, a);
        if (b.rope) {
            b.rope->apply(q, {.sequences = sequences_});
            b.rope->apply(k, {.sequences = sequences_});
        }
        q = rounded(q, std::min(attention_width_, q.cols()));
        k = rounded(k, std::min(attention_width_, k.cols()));
        matrix64 v = linear(linear_role::value, a);
        v = rounded(v, std::min(attention_width_, v.cols()));
        matrix64 context = matrix64::Zero(q.rows(), q.cols());
        for (index_t t = 0; t < q.rows(); ++t) {
            for (index_t h = 0; h < b.heads.heads; ++h) {
                index_t const kv = h / (b.heads.heads / b.heads.kv_heads) * hd;
                index_t const first = t / length * length;
                vector64 p(t - first + 1);
                for (index_t u = first; u <= t; ++u) {
                    p(u - first) = std::exp(q.row(t).segment(h * hd, hd).dot(k.row(u).segment(kv, hd)) /
                                            std::sqrt(static_cast<double>(hd)));
                }
                p /= p.sum();
                for (index_t u = first; u <= t; ++u) {
                    context.row(t).segment(h * hd, hd) += probability(p(u - first)) * v.row(u).segment(kv, hd);
                }
            }
        }
        context = rounded(context, context.cols());
        matrix64 const middle = x_ + linear(linear_role::output, context);
        matrix64 const m = rounded(norm(b.mlp_norm, middle), x_.cols());
        matrix64 hidden = linear(linear_role::up, m);
        if (b.has_gate()) {
            matrix64 const gate = linear(linear_role::gate, m);
            hidden.array() *= gate.array() / (1 + (-gate.array()).exp());
        } else {
            hidden = nn::activate(b.activation, hidden);
        }
        hidden = rounded(hidden, hidden.cols());
        return middle + linear(linear_role::down, hidden);
    }

    dense_block<double> floats_;
    any_grid weights_;
    index_t group_;
    std::optional<any_grid> activations_;
    index_t attention_width_;
    matrix64 x_;
    std::vector<matrix64> targets_;
    index_t sequences_;
    std::vector<rounding> roundings_;
    std::size_t next_ = 0;
    std::vector<double> residuals_; // of probabilities
    std::size_t next_probability_ = 0;
};

vector64 positive(index_t size, unsigned seed) {
    return (0.4 * test::random_vector64(size, seed).array()).exp();
}

/// Numbers for everything that can be learned of a block.
block_parameters<double> some_parameters(dense_block<double> const& b, index_t group) {
    index_t const hidden = b.attention_norm.weight.size();
    index_t const values = b.heads.kv_heads * b.heads.head_dim;
    bool const shifted = b.attention_norm.type == norm_layer::kind::layer;
    auto const shift = [&](index_t n, unsigned seed) {
        return shifted ? vector64(0.3 * test::random_vector64(n, seed)) : vector64{};
    };
    block_parameters<double> p{.transform = {.attention_scale = positive(hidden, 1),
                                             .attention_shift = shift(hidden, 2),
                                             .context_scale = positive(values, 3),
                                             .context_shift = 0.3 * test::random_vector64(values, 4),
                                             .key_scale = positive(equivalent_transform<double>::key_scales(b), 5),
                                             .mlp_scale = positive(hidden, 6),
                                             .mlp_shift = shift(hidden, 7),
                                             .hidden_scale = {}},
                               .clips = {}};
    if (b.has_gate()) {
        p.transform.hidden_scale = positive(b[linear_role::up].weight.rows(), 8);
    }
    for (linear_role const role : block_roles) {
        auto const& w = b[role].weight;
        if (w.size() > 0) {
            auto const i = static_cast<std::size_t>(role);
            index_t const tiles = ceil_div(w.cols(), group);
            p.clips[i] = {test::random_matrix64(w.rows(), tiles, 20 + static_cast<unsigned>(i)).array() + 1.5,
                          test::random_matrix64(w.rows(), tiles, 30 + static_cast<unsigned>(i)).array() + 1.5};
        }
    }
    return p;
}

struct kind {
    char const* name;
    nlohmann::json model;
    any_grid weights;
    index_t group; // 0: a row
    std::optional<any_grid> activations;
    int probability_bits = 0;
};

class learned : public testing::TestWithParam<kind> {};
INSTANTIATE_TEST_SUITE_P(
    , learned,
    testing::Values(
        kind{"llama_int3_groups", test::llama_json(), any_grid(int_grid<3>{}), 5, {}},
        kind{"llama_int4_int4", test::llama_json(), any_grid(int_grid<4>{}), 0, any_grid(int_grid<4>{})},
        kind{"llama_e2m1_e2m1", test::llama_json(), any_grid(fp_grid<2, 1>{}), 0, any_grid(fp_grid<2, 1>{})},
        kind{"llama_int4_int6_probabilities", test::llama_json(), any_grid(int_grid<4>{}), 0, any_grid(int_grid<6>{}),
             4},
        kind{"opt_int2", test::opt_json(), any_grid(int_grid<2>{}), 0, {}},
        kind{"opt_int4_int6", test::opt_json(), any_grid(int_grid<4>{}), 0, any_grid(int_grid<6>{})},
        kind{"opt_sym4_e3m0_groups", test::opt_json(), any_grid(int_grid<4, zero::none>{}), 4,
             any_grid(fp_grid<3, 0>{})}),
    [](auto const& test) { return test.param.name; });

TEST_P(learned, gradients_are_those_of_the_surrogate_with_frozen_residuals) {
    auto const& k = GetParam();
    test::random_weights source;
    auto const model = assemble_decoder(parse_configuration(k.model, "config.json"), "", source);
    auto floats = dense<double>(model.blocks[0]);
    floats.heads.probability_bits = k.probability_bits;
    index_t const hidden = floats.attention_norm.weight.size();
    index_t const width = floats.heads.head_dim; // of what attention rounds together
    index_t const group = k.group > 0 ? k.group : 1000;
    index_t const sequences = 2;
    matrix64 const x = test::random_matrix64(sequences * 5, hidden, 50);
    std::vector<matrix64> const targets{test::random_matrix64(x.rows(), hidden, 51),
                                        test::random_matrix64(x.rows(), hidden, 52)};
    std::vector<basic_matrix_view<double>> const views(targets.begin(), targets.end());

    block_rounding<double> rounding;
    if (k.activations) {
        rounding = {fake_quantizer<double>(*k.activations, 0), fake_quantizer<double>(*k.activations, width)};
    }
    learned_block<double> const block(floats, fake_quantizer<double>(k.weights, k.group), rounding);
    surrogate_loss surrogate(floats, k.weights, group, k.activations, width, x, targets, sequences);

    block_parameters<double> p = some_parameters(floats, group);
    if (!k.activations) {
        p.transform.key_scale.resize(0); // makes no difference: every row of a weight has scales of its own
    }
    block_parameters<double> gradient = p.zeros();
    double const loss = block.loss(p, x, views, {.sequences = sequences}, gradient);
    ASSERT_NEAR(loss, surrogate(p), 1e-10 * loss);
    auto const compare = [&](std::vector<std::span<double>> const& found, std::vector<std::span<double>> const& at) {
        ASSERT_EQ(found.size(), at.size());
        for (std::size_t i = 0; i < at.size(); ++i) {
            SCOPED_TRACE("part " + std::to_string(i));
            Eigen::Map<vector64> const slope(found[i].data(), std::ssize(found[i]));
            Eigen::Map<vector64> numbers(at[i].data(), std::ssize(at[i]));
            test::expect_gradient(slope, numbers, [&] { return surrogate(p); }, 1 + std::ssize(at[i]) / 12, 1e-6,
                                  1e-4);
        }
    };
    compare(gradient.transform_parts(), p.transform_parts());
    compare(gradient.clip_parts(), p.clip_parts());
}

TEST_P(learned, a_transformed_block_computes_the_same) {
    test::random_weights source;
    auto const model = assemble_decoder(parse_configuration(GetParam().model, "config.json"), "", source);
    auto const floats = dense<double>(model.blocks[0]);
    auto p = some_parameters(floats, 1000).transform;
    p.attention_scale(1) *= -1; // scales may be negative
    auto const made = p.apply(floats);
    EXPECT_GT((made[linear_role::query].weight - floats[linear_role::query].weight).norm(), 1);
    matrix64 const x = test::random_matrix64(12, floats.attention_norm.weight.size(), 3);
    block_tape<double> tape;
    auto const y = [&](dense_block<double> const& b) { return forward<double>(b, {}, x, {.sequences = 2}, tape); };
    matrix64 const expected = y(floats);
    EXPECT_LE((y(made) - expected).norm(), 1e-12 * expected.norm());
}

} // namespace
} // namespace detent

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <algorithm>
#include <cmath>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "detent/grid/fp_grid.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/model/learned_block.hpp"
#include "model/block_cases.hpp"
#include "model/random_transform.hpp"
#include "model/reference_block.hpp"
#include "nn/finite_differences.hpp"

namespace detent {
namespace {

using test::matrix64;
using test::vector64;

/// The loss of a quantized block straight from its definition, one number at a time. The first call rounds and keeps
/// the residual of every rounding, whether it clipped, and the zero points; from then on these stay, which makes of it
/// the smooth function whose gradient the straight-through estimator is.
class surrogate_loss : private test::reference_block {
public:
    surrogate_loss(dense_block<double> floats, any_grid weights, index_t group, std::optional<any_grid> activations,
                   matrix64 x, std::vector<matrix64> targets, index_t sequences)
        : floats_(std::move(floats)), weights_(std::move(weights)), group_(group), activations_(std::move(activations)),
          x_(std::move(x)), targets_(std::move(targets)), sequences_(sequences) {}

    /// By how much the loss exceeds that of the first call; the difference of the two would lose digits.
    double operator()(block_parameters<double> const& p) {
        next_ = next_probability_ = 0;
        dense_block<double> b = transformed(p.transform);
        for (auto const& places : b.groups()) {
            for (layer_place const place : places) {
                auto& weight = b.linear(place).weight;
                weight = round(weight, weights_, group_, p.clip(place));
            }
        }
        matrix64 const y = run(b, x_, sequences_);
        if (first_.size() == 0) {
            first_ = y;
        }
        double more = 0;
        for (auto const& target : targets_) {
            more += ((y - first_).array() * (y + first_ - 2 * target).array()).mean();
        }
        return more;
    }

    double first_loss() const {
        double loss = 0;
        for (auto const& target : targets_) {
            loss += (first_ - target).array().square().mean();
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

    matrix64 round_input(matrix64 const& x) override {
        return activations_ ? round(x, *activations_, x.cols(), nullptr) : x;
    }
    matrix64 round_heads(matrix64 const& x) override {
        return activations_ ? round(x, *activations_, floats_.heads.head_dim, nullptr) : x;
    }

    /// Rounded, or with the residual of the first call.
    double round_probability(double p) override {
        if (floats_.heads.probability_bits == 0) {
            return p;
        }
        double const steps = std::pow(2, floats_.heads.probability_bits) - 1;
        if (next_probability_ == residuals_.size()) {
            residuals_.push_back(std::round(p * steps) / steps - p);
        }
        return p + residuals_[next_probability_++];
    }

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
                        remember(r, numbers, part(i) / s);
                    }
                    auto const k = static_cast<std::size_t>(i);
                    y(row, col + i) = r.clipped[k] ? s * r.rest[k] : part(i) + s * r.rest[k];
                }
            }
        }
        return y;
    }

    /// Of the number `ratio` in units of the scale. Numbers are rounded in float, which may decide where one lies
    /// between two.
    static void remember(rounding& r, std::vector<double> const& numbers, double ratio) {
        double const v = ratio + r.zero;
        double const in_float = static_cast<float>(ratio) + static_cast<float>(r.zero);
        double const nearest = *std::ranges::min_element(numbers, {}, [&](double n) { return std::abs(n - in_float); });
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
        auto const key = [&](index_t c) { return t.key_scale.size() > 0 ? t.key_scale(key_index(b, c)) : 1.0; };
        auto const norm = [&](std::optional<basic_norm_layer<double>>& n, auto const& c) {
            for (index_t i = 0; n && i < n->weight.size(); ++i) {
                n->weight(i) /= scale(c.scale, i);
                if (n->bias.size() > 0) {
                    n->bias(i) = (n->bias(i) - shift(c.shift, i)) / scale(c.scale, i);
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
        auto const read = [&](dense_linear<double>& l, auto const& c) {
            if (c.shift.size() > 0 && l.bias.size() == 0) {
                l.bias = vector64::Zero(l.weight.rows());
            }
            columns(
                l, [&](index_t j) { return scale(c.scale, j); }, [&](index_t j) { return shift(c.shift, j); });
        };
        auto const none = [](index_t) { return 0.0; };
        norm(b.attention_norms.input, t.attention);
        norm(b.mlp_norms.input, t.mlp);
        for (auto* const l : {&b.query, &b.key, &b.value}) {
            read(*l, t.attention);
        }
        auto const& of_mlp = b.shares_norm() ? t.attention : t.mlp;
        for (auto* const l : {&b.router, &b.shared_gate}) {
            if (*l) {
                read(**l, of_mlp);
            }
        }
        for (std::size_t e = 0; e < b.mlps.size(); ++e) {
            auto& mlp = b.mlps[e];
            read(mlp.up, of_mlp);
            if (mlp.gate) {
                read(*mlp.gate, of_mlp);
            }
            if (e < t.hidden.size() && t.hidden[e].size() > 0) {
                rows(
                    mlp.up, [&](index_t i) { return t.hidden[e](i); }, none);
                columns(
                    mlp.down, [&](index_t j) { return t.hidden[e](j); }, none);
            }
        }
        rows(
            b.value, [&](index_t i) { return scale(t.context.scale, i); },
            [&](index_t i) { return shift(t.context.shift, i); });
        if (t.context.shift.size() > 0 && b.value.bias.size() == 0) {
            b.value.bias = -t.context.shift.cwiseQuotient(t.context.scale);
        }
        if (t.context.shift.size() > 0 && b.output.bias.size() == 0) {
            b.output.bias = vector64::Zero(b.output.weight.rows());
        }
        columns(
            b.output, [&](index_t j) { return scale(t.context.scale, of_query(j)); },
            [&](index_t j) { return shift(t.context.shift, of_query(j)); });
        rows(
            b.query, [&](index_t i) { return key(of_query(i)); }, none);
        rows(
            b.key, [&](index_t i) { return 1 / key(i); }, none);
        return b;
    }

    dense_block<double> floats_;
    any_grid weights_;
    index_t group_;
    std::optional<any_grid> activations_;
    matrix64 x_;
    std::vector<matrix64> targets_;
    index_t sequences_;
    matrix64 first_; // result of the first call
    std::vector<rounding> roundings_;
    std::size_t next_ = 0;
    std::vector<double> residuals_; // of probabilities
    std::size_t next_probability_ = 0;
};

/// How a block is rounded.
struct rounding_kind {
    char const* name;
    any_grid weights;
    index_t group; // 0: a row
    std::optional<any_grid> activations;
    int probability_bits = 0;
};

/// Numbers for everything that can be learned of a block.
block_parameters<double> some_parameters(dense_block<double> const& b, index_t group) {
    block_parameters<double> p{test::random_transform(b), {}};
    unsigned seed = 20;
    for (auto const& places : b.groups()) {
        for (layer_place const place : places) {
            extents const shape = b.linear(place).shape();
            index_t const tiles = ceil_div(shape.cols, group);
            p.clips[place] = {test::random_matrix64(shape.rows, tiles, seed).array() + 1.5,
                              test::random_matrix64(shape.rows, tiles, seed + 1).array() + 1.5};
            seed += 2;
        }
    }
    return p;
}

/// Compares the gradient of the loss with differences of the surrogate's, in about `entries` places of each part.
void expect_gradient_of_surrogate(dense_block<double> floats, rounding_kind const& k, index_t entries, double step) {
    floats.heads.probability_bits = k.probability_bits;
    index_t const hidden = floats.query.weight.cols();
    index_t const group = k.group > 0 ? k.group : 1000;
    index_t const sequences = 2;
    matrix64 const x = test::random_matrix64(sequences * 5, hidden, 50);
    std::vector<matrix64> const targets{test::random_matrix64(x.rows(), hidden, 51),
                                        test::random_matrix64(x.rows(), hidden, 52)};
    std::vector<basic_matrix_view<double>> const views(targets.begin(), targets.end());

    block_rounding<double> rounding;
    if (k.activations) {
        rounding = {fake_quantizer<double>(*k.activations, 0),
                    fake_quantizer<double>(*k.activations, floats.heads.head_dim)};
    }
    learned_block<double> const block(floats, fake_quantizer<double>(k.weights, k.group), rounding);
    surrogate_loss surrogate(floats, k.weights, group, k.activations, x, targets, sequences);

    block_parameters<double> p = some_parameters(floats, group);
    if (!k.activations) {
        p.transform.key_scale.resize(0); // makes no difference: every row of a weight has scales of its own
    }
    block_parameters<double> gradient = p.zeros();
    double const loss = block.loss(p, x, views, {.sequences = sequences}, gradient);
    surrogate(p);
    ASSERT_NEAR(loss, surrogate.first_loss(), 1e-10 * loss);
    auto const rule = test::difference_rule::of(floats, step);
    auto const compare = [&](std::vector<std::span<double>> const& found, std::vector<std::span<double>> const& at) {
        ASSERT_EQ(found.size(), at.size());
        for (std::size_t i = 0; i < at.size(); ++i) {
            SCOPED_TRACE("part " + std::to_string(i));
            Eigen::Map<vector64> const slope(found[i].data(), std::ssize(found[i]));
            Eigen::Map<vector64> numbers(at[i].data(), std::ssize(at[i]));
            if (floats.router && slope.isZero(0)) {
                continue; // of an expert that no token was sent to
            }
            test::expect_gradient(
                slope, numbers, [&] { return surrogate(p); }, 1 + std::ssize(at[i]) / entries, rule.tolerance,
                rule.step);
        }
    };
    compare(gradient.transform_parts(), p.transform_parts());
    compare(gradient.clip_parts(), p.clip_parts());
}

any_grid const int2(int_grid<2>{}), int3(int_grid<3>{}), int4(int_grid<4>{}), int6(int_grid<6>{});
any_grid const sym4(int_grid<4, zero::none>{}), fp4(fp_grid<2, 1>{}), e3m0(fp_grid<3, 0>{});

struct learned_case {
    rounding_kind kind;
    test::block_case block;
};

/// The blocks of LLaMA and OPT rounded in every way, others in two.
std::vector<learned_case> learned_cases() {
    std::vector<learned_case> all;
    for (auto const& block : test::small_blocks()) {
        all.push_back({{"int3_groups", int3, 5, {}}, block});
        all.push_back({{"int4_int6", int4, 0, int6}, block});
        if (block.name == "gated" || block.name == "plain") {
            all.push_back({{"int2", int2, 0, {}}, block});
            all.push_back({{"int4_int4", int4, 0, int4}, block});
            all.push_back({{"e2m1_e2m1", fp4, 0, fp4}, block});
            all.push_back({{"int4_int6_probabilities", int4, 0, int6, 4}, block});
            all.push_back({{"sym4_e3m0_groups", sym4, 4, e3m0}, block});
        }
    }
    return all;
}

class learned : public testing::TestWithParam<learned_case> {};
INSTANTIATE_TEST_SUITE_P(, learned, testing::ValuesIn(learned_cases()),
                         [](auto const& test) { return test.param.kind.name + ("_" + test.param.block.name); });

TEST_P(learned, gradients_are_those_of_the_surrogate_with_frozen_residuals) {
    auto const& [kind, block] = GetParam();
    expect_gradient_of_surrogate(block.make(), kind, 5, 1e-4);
}

class learned_family : public testing::TestWithParam<test::block_case> {};
INSTANTIATE_TEST_SUITE_P(, learned_family, testing::ValuesIn(test::family_blocks()), test::case_name);

TEST_P(learned_family, gradients_are_those_of_the_surrogate_with_frozen_residuals) {
    // What attention makes of one token is on the grid of its values. To round it again can be a tie that is decided by
    // the last bit, so activations are rounded in small blocks only.
    expect_gradient_of_surrogate(GetParam().make(), {"int3", int3, 0, {}}, 2, 1e-3);
}

TEST(learned_block, rounds_all_layers_but_routers) {
    for (auto const& c : test::small_blocks()) {
        dense_block<double> const floats = c.make();
        learned_block<double> const block(floats, fake_quantizer<double>(int3, 0));
        auto const quantized = block.quantized({});
        for (layer_place const place : floats.places()) {
            EXPECT_EQ(quantized.linear(place).weight != floats.linear(place).weight, is_quantized(place.role))
                << c.name;
        }
    }
}

} // namespace
} // namespace detent

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <cmath>
#include <optional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "detent/core/eigen.hpp"
#include "detent/core/thread_team.hpp"
#include "detent/grid/codebook_grid.hpp"
#include "detent/grid/fp_grid.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/kernel/attention.hpp"
#include "detent/matrix/kv_store.hpp"
#include "grid/own_grid.hpp"

namespace detent {
namespace {

struct reference_rule {
    kernel::score_rule rule;
    std::vector<float> slopes = {};
    std::vector<float> sinks = {};

    kernel::score_rule get() const {
        auto r = rule;
        r.slopes = slopes.empty() ? nullptr : slopes.data();
        r.sinks = sinks.empty() ? nullptr : sinks.data();
        return r;
    }
};

/// Attention in double, number by number, over keys and values [first, ...) (token, kv_heads * head_dim).
matrix reference(matrix const& q, matrix const& k, matrix const& v, index_t start, index_t first, index_t heads,
                 index_t kv_heads, reference_rule const& r) {
    auto const& rule = r.rule;
    index_t const hd = q.cols() / heads;
    matrix y(q.rows(), q.cols());
    for (index_t t = 0; t < q.rows(); ++t) {
        for (index_t h = 0; h < heads; ++h) {
            index_t const position = start + t;
            index_t const from = rule.window > 0 ? std::max<index_t>(0, position - rule.window + 1) : 0;
            index_t const col = h / (heads / kv_heads) * hd;
            std::vector<double> scores;
            double highest = r.sinks.empty() ? -1e300 : double(r.sinks[std::size_t(h)]);
            for (index_t s = from; s <= position; ++s) {
                double sum = 0;
                for (index_t i = 0; i < hd; ++i) {
                    sum += double(q(t, h * hd + i)) * double(k(s - first, col + i));
                }
                sum *= double(rule.scale);
                sum = rule.soft_cap > 0 ? double(rule.soft_cap) * std::tanh(sum / double(rule.soft_cap)) : sum;
                sum += r.slopes.empty() ? 0 : double(r.slopes[std::size_t(h)]) * double(s - position);
                scores.push_back(sum);
                highest = std::max(highest, sum);
            }
            double total = r.sinks.empty() ? 0 : std::exp(double(r.sinks[std::size_t(h)]) - highest);
            for (double& s : scores) {
                s = std::exp(s - highest);
                total += s;
            }
            double const steps = std::pow(2, rule.probability_bits) - 1;
            for (index_t i = 0; i < hd; ++i) {
                double sum = 0;
                for (index_t s = from; s <= position; ++s) {
                    double p = scores[std::size_t(s - from)] / total;
                    p = rule.probability_bits > 0 ? std::round(p * steps) / steps : p;
                    sum += p * double(v(s - first, col + i));
                }
                y(t, h * hd + i) = float(sum);
            }
        }
    }
    return y;
}

struct sizes {
    index_t heads;
    index_t kv_heads;
    index_t head_dim;
    index_t tokens; // of queries
    index_t cached; // with those
};

void expect_attention(kv_format const& format, sizes s, reference_rule const& rule, float tolerance = 2e-5F) {
    SCOPED_TRACE(testing::Message() << (format.grid ? format.grid->name() : "floats") << " g" << format.group << ' '
                                    << s.heads << '/' << s.kv_heads << " x " << s.head_dim << ", " << s.tokens << " of "
                                    << s.cached << ", window " << rule.rule.window);
    kv_store keys("keys", format, s.kv_heads, s.head_dim, rule.rule.window);
    kv_format uncentered = format;
    uncentered.centered = false;
    kv_store values("values", uncentered, s.kv_heads, s.head_dim, rule.rule.window);
    index_t const before = s.cached - s.tokens;
    for (index_t t = 0; t < before; t += 9) { // growing
        index_t const n = std::min<index_t>(9, before - t);
        keys.append(2 * matrix::Random(n, s.kv_heads * s.head_dim));
        values.append(matrix::Random(n, s.kv_heads * s.head_dim));
    }
    keys.append(2 * matrix::Random(s.tokens, s.kv_heads * s.head_dim));
    values.append(matrix::Random(s.tokens, s.kv_heads * s.head_dim));
    matrix const q = 2 * matrix::Random(s.tokens, s.heads * s.head_dim);
    matrix const expected =
        reference(q, keys.decode(), values.decode(), before, keys.first(), s.heads, s.kv_heads, rule);
    matrix y(q.rows(), q.cols());
    kernel::attend(keys.view(), values.view(),
                   {.q = q.data(),
                    .q_stride = q.cols(),
                    .y = y.data(),
                    .y_stride = y.cols(),
                    .tokens = s.tokens,
                    .first = before,
                    .heads = s.heads,
                    .kv_heads = s.kv_heads},
                   rule.get());
    EXPECT_LE((y - expected).cwiseAbs().maxCoeff(), tolerance);
}

std::vector<kv_format> kv_formats() {
    std::vector<kv_format> formats{
        {.floats = float_format::f32}, {.floats = float_format::f16}, {.floats = float_format::bf16}};
    for (index_t const group : {0, 16, 5}) {
        for (auto const& grid :
             {any_grid(int_grid<8>{}, "int8"), any_grid(int_grid<8, zero::none>{}, "int8sym"),
              any_grid(int_grid<4>{}, "int4"), any_grid(int_grid<4, zero::none>{}, "int4sym"),
              any_grid(int_grid<2>{}, "int2"), any_grid(int_grid<5>{}, "int5"), any_grid(e4m3{}, "e4m3"),
              any_grid(e5m2{}, "e5m2"), any_grid(e2m1{}, "e2m1"), any_grid(nf4{}, "nf4"),
              any_grid(test::powers_of_two{}, "own"), any_grid(test::five{}, "five")}) {
            formats.push_back(kv_format::of(grid, group));
            formats.back().centered = group == 16;
        }
    }
    return formats;
}

TEST(attention, of_every_format_equals_that_of_decoded_numbers_in_double) {
    for (auto const& format : kv_formats()) {
        expect_attention(format, {2, 2, 24, 1, 150}, {{.scale = 0.2F}});
        expect_attention(format, {4, 2, 11, 9, 70}, {{.scale = 0.3F}});
    }
}

TEST(attention, takes_one_and_many_queries_of_any_number_of_heads) {
    for (auto const& format : {kv_format{}, kv_format::of(any_grid(int_grid<4>{}, "int4"), 32)}) {
        for (sizes const s : {sizes{1, 1, 1, 1, 1},
                              {6, 6, 48, 1, 64},
                              {8, 2, 128, 1, 200},
                              {7, 1, 64, 3, 129},
                              {4, 4, 80, 130, 130},
                              {2, 1, 256, 5, 65}}) {
            expect_attention(format, s, {{.scale = 1 / std::sqrt(float(s.head_dim))}});
        }
    }
}

TEST(attention, follows_the_rule_of_scores) {
    for (auto const& format : {kv_format{}, kv_format::of(any_grid(int_grid<8>{}, "int8"))}) {
        sizes const s{4, 2, 16, 5, 140};
        expect_attention(format, s, {{.scale = 0.25F, .soft_cap = 1.5F}});
        expect_attention(format, s, {{.scale = 0.25F}, {0.5F, 0.25F, 0.0625F, 0.01F}});
        expect_attention(format, s, {{.scale = 0.25F}, {}, {3.0F, 0.0F, -2.0F, 40.0F}});
        expect_attention(format, s, {{.scale = 0.25F, .soft_cap = 5, .window = 100}, {0.1F, 0, 0, 0.2F}, {1, 2, 3, 4}});
        // Half a step where a probability rounds to the other side.
        expect_attention(format, s, {{.scale = 0.7F, .probability_bits = 16}}, 5e-5F);
    }
}

TEST(attention, sees_the_last_tokens_of_a_window) {
    kv_format centered = kv_format::of(any_grid(int_grid<4>{}, "int4"), 16);
    centered.centered = true;
    for (auto const& format : {kv_format{}, centered}) {
        for (index_t const window : {1, 2, 7, 64, 65, 100, 1000}) {
            expect_attention(format, {2, 1, 16, 1, 200}, {{.scale = 0.25F, .window = window}});
            expect_attention(format, {2, 1, 16, 90, 200}, {{.scale = 0.25F, .window = window}});
            expect_attention(format, {3, 3, 16, 90, 90}, {{.scale = 0.25F, .window = window}});
        }
    }
}

TEST(attention, survives_scores_of_any_size) {
    kv_store keys("keys", {}, 1, 8);
    kv_store values("values", {}, 1, 8);
    matrix k = matrix::Constant(70, 8, 1.0F);
    k.row(3).setConstant(1e4F);
    matrix const v = matrix::Random(70, 8);
    keys.append(k);
    values.append(v);
    matrix const q = matrix::Constant(1, 8, 1e3F);
    matrix y(1, 8);
    kernel::attend(keys.view(), values.view(), {q.data(), 8, y.data(), 8, 1, 69, 1, 1}, {});
    EXPECT_LE((y - v.row(3)).cwiseAbs().maxCoeff(), 1e-6F);
    matrix const down = -q; // all but the third weigh the same
    kernel::attend(keys.view(), values.view(), {down.data(), 8, y.data(), 8, 1, 69, 1, 1}, {});
    matrix const mean = (v.colwise().sum() - v.row(3)) / 69;
    EXPECT_LE((y - mean).cwiseAbs().maxCoeff(), 1e-5F);
}

TEST(attention, has_the_same_bits_for_any_executor) {
    auto const format = kv_format::of(any_grid(int_grid<8>{}, "int8"), 32);
    kv_store keys("keys", format, 6, 48);
    kv_store values("values", format, 6, 48);
    keys.append(matrix::Random(300, 6 * 48));
    values.append(matrix::Random(300, 6 * 48));
    matrix const q = matrix::Random(20, 12 * 48);
    auto const run = [&](executor_ref executor) {
        matrix y(q.rows(), q.cols());
        kernel::attend(keys.view(), values.view(), {q.data(), q.cols(), y.data(), y.cols(), 20, 280, 12, 6}, {},
                       executor);
        return y;
    };
    thread_team team(3);
    EXPECT_EQ(run({}), run(team));
}

} // namespace
} // namespace detent

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "detent/quantizer/catalogue.hpp"
#include "detent/quantizer/quantizer.hpp"
#include "detent/scale/truncated.hpp"
#include "detent/solver/joint_search.hpp"
#include "detent/transform/fake_quantizer.hpp"
#include "io/failure_message.hpp"
#include "solver/correlated_inputs.hpp"
#include "solver/two_groups.hpp"

namespace {

using namespace detent;
using test::correlated_inputs;
using test::random_matrix;

TEST(catalogue, solvers_of_both_streams_are_there) {
    matrix const w = random_matrix(20, 50, 1);
    matrix const floats = correlated_inputs(200, 50, 1);
    layer_inputs known(50);
    known.add(0.9F * floats, floats);
    problem_of const p{int_grid<3>{}, per_channel{}, minmax_range{}};
    auto const codes = [&](char const* text) { return quantize(w, known, spec::parse(text)).weights; };
    EXPECT_TRUE(codes("int3:gptq") == pack(gptq<>{}.solve(w, known, p)));
    EXPECT_TRUE(codes("int3:gptaq") == pack(gptaq<>{}.solve(w, known, p)));
    qronos<> const half{.rounding = {.activation_order = true}, .strength = 0.5};
    EXPECT_TRUE(codes("int3:qronos:act:strength=0.5") == pack(half.solve(w, known, p)));
    EXPECT_TRUE(codes("int3:obq:zeros:damp=0.1") == pack(obq{.damping = 0.1, .keep_zeros = true}.solve(w, known, p)));

    problem_of const searched{int_grid<3>{}, per_channel{}, truncated_range{}};
    auto const expect_weak = [&](char const* text, auto const& solver) {
        EXPECT_TRUE(codes(text) == pack(solver.solve(w, known, searched))) << text;
        EXPECT_EQ(codes(text).weak.count(), 2) << text;
    };
    expect_weak("int3:owq=2:gptaq", owq<gptaq<>>{.columns = 2});
    expect_weak("int3:owq=2:qronos:act:strength=0.5", owq<qronos<>>{.inner = half, .columns = 2});
    expect_weak("int3:owq@3.5:qronos:uncompensated", owq<qronos<>>{.columns = 2, .compensate = false});
    EXPECT_FALSE(codes("int3:owq=2:gptaq") == codes("int3:owq=2:qronos"));
    EXPECT_TRUE(codes("int3:owq=2") == quantize(w, known.hessian(), spec::parse("int3:owq=2")).weights);
    EXPECT_TRUE(codes("int3:owq=2:rtn") == quantize(w, known.hessian(), spec::parse("int3:owq=2:rtn")).weights);
}

TEST(catalogue, weak_columns_for_a_number_of_bits_are_counted_for_this_matrix) {
    matrix const w = random_matrix(20, 50, 1);
    hessian const h = hessian::of(correlated_inputs(200, 50, 1));
    for (auto const& [average, fixed] :
         {std::pair{"int3:owq@3.5", "int3:owq=2"}, std::pair{"int3:owq@4", "int3:owq=4"},
          std::pair{"int4:g16:owq@5:rtn", "int4:g16:owq=4:rtn"}, std::pair{"int3:owq@3", "int3:truncated:gptq"}}) {
        spec const s = spec::parse(average);
        quantization const result = quantize(w, h, s);
        EXPECT_TRUE(result.weights == quantize(w, h, spec::parse(fixed)).weights) << average;
        EXPECT_EQ(result.weights.weak.count(),
                  weak_budget(bits_of(s), s.weak.bits, std::array{weak_share{shape_of(w)}}).front());
    }
}

/// The mean of |W x - Q x^|^2 over the inputs, for what a search chose.
double error_of(joint_search::answer const& a, matrix const& w, matrix const& x) {
    matrix const q = decode(a.weights.weights);
    return (x.cast<double>() * w.cast<double>().transpose() -
            a.input.round(x).cast<double>() * q.cast<double>().transpose())
               .squaredNorm() /
           static_cast<double>(x.rows());
}

/// Inputs with features far larger than the others, where weights are small; all of them kept.
struct kept_layer {
    matrix x = correlated_inputs(200, 48, 1);
    matrix w = random_matrix(20, 48, 1);
    layer_inputs known{48};

    kept_layer() {
        for (index_t const j : {4, 21}) {
            x.col(j) *= 30;
            w.col(j) /= 30;
        }
        known.keep(200);
        known.add(x);
    }

    quantization result(char const* text) const { return quantize(w, known, spec::parse(text)); }

    /// The mean of |W x - Q x^|^2 over the inputs x, which become x^.
    double error(quantization const& q) const {
        matrix const rounded = q.input ? q.input->round(x) : x;
        return (x.cast<double>() * w.cast<double>().transpose() -
                rounded.cast<double>() * dequantize(q.weights).cast<double>().transpose())
                   .squaredNorm() /
               200;
    }
    double error(char const* text) const { return error(result(text)); }
};

TEST(catalogue, inputs_can_be_quantized_too) {
    kept_layer const l;
    EXPECT_FALSE(l.result("fp4").input);
    EXPECT_TRUE(*l.result("int4:a=int8").input == activation_quantizer(any_grid(int_grid<8>{})));
    EXPECT_TRUE(*l.result("int4:a=int8@token").input == activation_quantizer(any_grid(int_grid<8>{})));
    EXPECT_TRUE(*l.result("int4:a=int8sym").input == activation_quantizer(any_grid(int_grid<8, zero::none>{})));
    EXPECT_TRUE(*quantize(l.w, spec::parse("int4:a=e4m3")).input == activation_quantizer(any_grid(fp_grid<4, 3>{})));
    EXPECT_EQ(l.result("int4:a=e4m3").input->grid().name(), "e4m3");
    EXPECT_EQ(l.result("int4:a=int8sym").input->grid().name(), "int8sym");
    EXPECT_TRUE(l.result("int4:a=int8").weights == l.result("int4").weights);

    // One range for all: the whole range of the inputs that were seen.
    quantization const fixed = l.result("e2m1:a=e2m1@tensor");
    ASSERT_TRUE(fixed.input && fixed.input->fixed().size() == 1);
    float const scale = fixed.input->fixed().front().scale;
    EXPECT_NEAR(scale, l.x.cwiseAbs().maxCoeff() / 6, 1e-6 * scale);
    EXPECT_TRUE(fixed.input->shifts().empty());
    EXPECT_TRUE(fixed.weights == l.result("e2m1").weights);
    EXPECT_FALSE(l.result("e2m1:a=e2m1@tensor:gptq").weights == l.result("e2m1:gptq").weights); // sees rounded inputs
    EXPECT_TRUE(l.result("e2m1:a=fp4@tensor").weights == fixed.weights);
}

TEST(catalogue, ranges_and_formats_are_searched_by_the_output) {
    kept_layer const l;
    problem_of const e2m1_rows{e2m1{}, per_channel{}, absmax_range{}};
    problem_of const e3m0_rows{fp_grid<3, 0>{}, per_channel{}, absmax_range{}};
    problem_of const e1m2_rows{fp_grid<1, 2>{}, per_channel{}, absmax_range{}};
    std::vector<problem const*> const formats{&e2m1_rows, &e1m2_rows, &e3m0_rows};
    std::vector<any_grid> const grids{any_grid(e2m1{}), any_grid(fp_grid<3, 0>{}), any_grid(fp_grid<1, 2>{})};

    double least = std::numeric_limits<double>::infinity();
    for (problem const* p : formats) {
        least = std::min(least, output_search{}.solve(l.w, l.known, *p).report.loss);
    }
    quantization const weights = l.result("fp4:search"); // the inputs stay
    EXPECT_FALSE(weights.input);
    EXPECT_NEAR(l.error(weights), least, 1e-4 * least);
    EXPECT_TRUE(l.result("e2m1:search:g16").weights ==
                pack(output_search{}.solve(l.w, l.known, problem_of{e2m1{}, per_group<16>{}, absmax_range{}})));
    range_candidates const biases{.spaced = range_candidates::spacing::bias};
    EXPECT_TRUE(l.result("e2m1:search:paper").weights == pack(output_search{biases}.solve(l.w, l.known, e2m1_rows)));

    for (auto const& [text, search] :
         {std::pair{"fp4:a=fp4@tensor:search", joint_search{}},
          std::pair{"fp4:a=fp4:fpq", joint_search{.shifted = true}},
          std::pair{"fp4:a=fp4@tensor:fpq:paper", joint_search{.candidates = biases, .shifted = true}}}) {
        auto const expected = search(l.w, l.x, formats, grids);
        double const error = error_of(expected, l.w, l.x);
        quantization const found = l.result(text);
        EXPECT_NEAR(l.error(found), error, 0.01 * error) << text; // the order of formats may decide more than that
        ASSERT_TRUE(found.input && !found.input->fixed().empty()) << text;
        EXPECT_EQ(found.input->shifts().empty(), !search.shifted) << text;
        EXPECT_EQ(found.input->grid().bits(), 4) << text;
        EXPECT_NEAR(found.report.loss, l.error(found), 1e-4 * error) << text;
    }
    double const whole = l.error("fp4:a=fp4@tensor");
    double const searched = l.error("fp4:a=fp4@tensor:search");
    EXPECT_LT(searched, 0.95 * whole);
    EXPECT_LT(l.error("fp4:a=fp4:fpq"), 0.75 * searched);
    EXPECT_EQ(l.result("e2m1:a=e1m2:fpq").weights.table, l.result("e2m1").weights.table); // named splits stay
    EXPECT_EQ(l.result("e2m1:a=e1m2:fpq").input->grid().name(), "e1m2");
}

TEST(catalogue, solvers_choose_codes_for_the_ranges_that_were_found) {
    kept_layer const l;
    quantization const searched = l.result("fp4:a=fp4:fpq");
    for (auto const* const text : {"fp4:a=fp4:fpq:gptq", "fp4:a=fp4:fpq:gptq:act", "fp4:a=fp4:fpq:obq"}) {
        quantization const solved = l.result(text);
        EXPECT_TRUE(*solved.input == *searched.input) << text;
        EXPECT_EQ(solved.weights.scales, searched.weights.scales) << text;
        EXPECT_EQ(solved.weights.table, searched.weights.table) << text;
        EXPECT_LT(l.error(solved), l.error(searched)) << text;
    }
    // These correct what rounding does to the inputs, which they are told without a float stream.
    EXPECT_LT(l.error("fp4:a=fp4:fpq:gptaq"), l.error("fp4:a=fp4:fpq:gptq"));
    EXPECT_LT(l.error("fp4:a=fp4@tensor:qronos"), l.error("fp4:a=fp4@tensor:gptq"));

    EXPECT_EQ(l.result("int3:search:g16:gptq").weights.scales, l.result("int3:search:g16").weights.scales);
    EXPECT_LT(l.error("int3:search:g16:gptq"), l.error("int3:search:g16"));
}

/// Scales that were found elsewhere, in tiles of that shape.
given_range as_given(fake_quantizer<float>::tiles const& found, extents tile, scale_format format) {
    given_range given{.scales = {}, .tile = tile};
    given.scales.tiles = shape_of(found.scale);
    given.scales.format = format;
    given.scales.scales.assign(found.scale.data(), found.scale.data() + found.scale.size());
    given.scales.zeros.assign(found.zero.data(), found.zero.data() + found.zero.size());
    return given;
}

TEST(catalogue, solvers_choose_codes_for_scales_that_are_given) {
    matrix const w = random_matrix(6, 40, 1);
    layer_inputs inputs(40);
    inputs.add(correlated_inputs(200, 40, 2));
    for (auto const* const grid : {"int3:g16", "e2m1", "int4:a=int8"}) {
        spec const s = spec::parse(grid);
        fake_quantizer<float> const rounds(find_grid(s.grid), s.granularity.cols, s.format);
        auto clip = learned_clip<float>::of(6, rounds.tiles_of(40), 2);
        fake_quantizer<float>::tiles scales;
        matrix const expected = rounds.forward(w, &clip, scales);
        given_range const given = as_given(scales, {1, rounds.width(40)}, s.format);
        quantization const rounded = named_quantizer(s).with_scales(given)(w, inputs);
        EXPECT_EQ(dequantize(rounded.weights), expected) << grid;
        EXPECT_EQ(rounded.input.has_value(), !s.input.grid.name.empty()) << grid;

        auto const loss = [&](char const* solver) {
            auto const solved_by = named_quantizer(spec::parse(std::string(grid) + solver)).with_scales(given);
            quantization const q = solved_by(w, inputs);
            EXPECT_EQ(q.weights.weak.count() > 0 || q.weights.scales == rounded.weights.scales, true) << grid << solver;
            return inputs.hessian().quadratic(w - dequantize(q.weights));
        };
        EXPECT_LT(loss(":gptq"), loss("")) << grid;
        EXPECT_LT(loss(":gptq:act"), loss("")) << grid;
        EXPECT_LT(loss(":owq=2"), loss(":gptq")) << grid;
    }
}

TEST(catalogue, weak_columns_stand_among_scales_that_are_given) {
    test::two_groups const l;
    auto const result = [&](char const* text) {
        return named_quantizer(spec::parse(text)).with_scales(l.given)(l.w, l.known);
    };
    quantization const plain = result("int3:g16:owq=2:rtn:uncompensated");
    EXPECT_EQ(plain.weights.weak.columns(), (std::vector<std::int32_t>{0, 1}));
    EXPECT_EQ(plain.weights.scales, l.given.scales);
    matrix const numbers = dequantize(plain.weights);
    for (index_t row = 0; row < l.w.rows(); ++row) {
        for (index_t col = 2; col < 32; ++col) {
            ASSERT_EQ(numbers(row, col), test::nearest(l, row, col)) << "row " << row << ", column " << col;
        }
    }
    for (auto const* const text :
         {"int3:g16:owq=2", "int3:g16:owq=2:act", "int3:g16:owq=2:obq", "int3:g16:owq=2:rtn"}) {
        quantization const better = result(text);
        EXPECT_EQ(better.weights.weak.columns(), plain.weights.weak.columns()) << text;
        EXPECT_EQ(better.weights.scales, l.given.scales) << text;
        EXPECT_LT(l.relative_error(better.weights), l.relative_error(plain.weights)) << text;
    }
    EXPECT_EQ(failure_message([&] { result("int3:g8:owq=2"); }), "given scales: are not for tiles of this matrix");
    EXPECT_EQ(failure_message([&] { result("int3:g16:clip"); }),
              "clipping: has nothing to learn where scales are given");
}

TEST(catalogue, scales_that_do_not_fit_are_counted) {
    matrix w = random_matrix(6, 48, 1);
    w.row(2) *= 1e7F;
    w.row(5).setZero();
    layer_inputs inputs(48);
    matrix const x = correlated_inputs(200, 48, 2);
    inputs.keep(200);
    inputs.add(x, 0.9F * x);
    auto const counted = [&](char const* text) { return quantize(w, inputs, spec::parse(text)).report.clamped_scales; };
    for (auto const* const text :
         {"int4", "int4:sym", "int1:sym", "int4:gptq", "int4:obq", "int4:qronos", "int4:mse", "int4:truncated", "e2m1",
          "int4:search", "int4:search:gptq", "int4:a=int8@tensor", "int4:a=int8", "fp4:a=fp4:fpq"}) {
        EXPECT_EQ(counted(text), 1) << text;
    }
    EXPECT_EQ(counted("int4:g16"), 3);
    EXPECT_EQ(counted("int4:g16:gptq:act"), 3);
    EXPECT_EQ(counted("int4:tensor"), 1);
    for (auto const* const text : {"int4:bf16", "int4:f32:gptq", "e2m1:g16:scale=e8m0", "int4:bf16:search"}) {
        EXPECT_EQ(counted(text), 0) << text;
    }
    spec const s = spec::parse("int4");
    fake_quantizer<float>::tiles given;
    fake_quantizer<float>(find_grid(s.grid), 0, s.format).forward(w, nullptr, given);
    named_quantizer const with_given = named_quantizer(s).with_scales(as_given(given, {1, 48}, s.format));
    EXPECT_EQ(with_given(w, inputs).report.clamped_scales, 1);
}

TEST(catalogue, weak_columns_go_with_a_search) {
    kept_layer const l;
    quantization const q = l.result("int3:owq=2:minmax:search");
    EXPECT_EQ(q.weights.weak.count(), 2);
    EXPECT_EQ(q.weights.scales, l.result("int3:minmax:search").weights.scales);
    EXPECT_LT(l.error(q), l.error("int3:gptq:minmax:search"));
    EXPECT_EQ(l.result("fp4:a=fp4:fpq:owq=2").weights.weak.count(), 2);
    EXPECT_EQ(l.result("fp4:a=fp4:fpq:owq=2:rtn").weights.weak.count(), 2);
    EXPECT_FALSE(l.result("fp4:a=fp4:fpq:owq=2:gptaq").weights == l.result("fp4:a=fp4:fpq:owq=2:rtn").weights);
    EXPECT_EQ(l.result("e2m1:a=e2m1@tensor:owq=2:g16").weights.weak.count(), 2);
    quantization const groups = l.result("int3:owq=2:search:g16"); // every column stays in its group
    EXPECT_EQ(groups.weights.weak.count(), 2);
    EXPECT_TRUE(groups.weights.map.empty());
    EXPECT_EQ(groups.weights.scales, l.result("int3:truncated:search:g16").weights.scales);
    EXPECT_LT(l.error(groups), l.error("int3:gptq:truncated:search:g16"));
}

TEST(catalogue, a_search_with_dynamic_inputs_takes_them_as_they_are_shown) {
    kept_layer const l;
    for (auto const* const text : {"fp4:a=int8:search", "fp4:a=int8@token:search"}) {
        quantization const q = l.result(text);
        EXPECT_TRUE(*q.input == activation_quantizer(any_grid(int_grid<8>{}))) << text;
        EXPECT_TRUE(q.weights == l.result("fp4:search").weights) << text;
    }
    quantization const floats = l.result("fp4:a=fp4:search"); // each token still has a range of its own
    EXPECT_TRUE(*floats.input == activation_quantizer(any_grid(e2m1{}, "e2m1")));
    EXPECT_TRUE(floats.weights == l.result("fp4:search").weights);
    quantization const fixed = l.result("fp4:a=int8@tensor:search");
    ASSERT_TRUE(fixed.input && !fixed.input->fixed().empty());
    EXPECT_LT(l.error(fixed), l.error("fp4:a=int8@tensor"));
}

TEST(catalogue, a_search_needs_to_know_the_inputs) {
    matrix const w = random_matrix(3, 20, 1);
    matrix const x = correlated_inputs(50, 20, 1);
    hessian const h = hessian::of(x);
    layer_inputs not_kept(20);
    not_kept.add(x);
    std::string const kept = "inputs that share a range need all inputs, kept";
    for (auto const* const text :
         {"fp4:a=fp4@tensor:search", "fp4:a=fp4:fpq", "fp4:a=fp4@tensor", "int4:a=int8@tensor:gptq"}) {
        std::string const subject = "specification '" + std::string(text) + "': ";
        EXPECT_EQ(failure_message([&] { quantize(w, not_kept, spec::parse(text)); }), subject + kept);
        EXPECT_EQ(failure_message([&] { quantize(w, h, spec::parse(text)); }), subject + kept);
        EXPECT_EQ(failure_message([&] { quantize(w, spec::parse(text)); }), subject + kept);
    }
    EXPECT_NO_THROW(quantize(w, not_kept, spec::parse("fp4:search")));
    for (auto const* const text : {"fp4:search", "fp4:search:gptq", "fp4:a=int8@token:search"}) {
        std::string const problem = "specification '" + std::string(text) + "': a search needs the inputs of the layer";
        EXPECT_EQ(failure_message([&] { quantize(w, spec::parse(text)); }), problem);
        // For squared errors the Hessian of the inputs is enough.
        EXPECT_TRUE(quantize(w, h, spec::parse(text)).weights == quantize(w, not_kept, spec::parse(text)).weights);
    }
    EXPECT_EQ(failure_message([&] { quantize(w, not_kept, spec::parse("fp4:search:metric=cosine")); }),
              "specification 'fp4:search:metric=cosine': " + kept);
}

TEST(catalogue, quantizes_embeddings) {
    matrix w = random_matrix(50, 24, 1);
    for (index_t row = 0; row < 50; ++row) {
        w.row(row) *= static_cast<float>(1 + row % 9);
    }
    auto const error = [&](packed_matrix const& q) { return (w - dequantize(q)).squaredNorm(); };
    quantization const plain = quantize_embeddings(w, spec::parse("int4:e=fp4:g8"));
    EXPECT_TRUE(plain.weights == quantize(w, spec::parse("e2m1:tensor")).weights);
    EXPECT_FALSE(plain.input);
    EXPECT_TRUE(quantize_embeddings(w, spec::parse("int4:gptq:e=int8:f32")).weights ==
                quantize(w, spec::parse("int8:tensor:f32")).weights);
    // With a search, the best split with ranges of rows.
    quantization const searched = quantize_embeddings(w, spec::parse("fp4:search:e=fp4"));
    double least = std::numeric_limits<double>::infinity();
    for (auto const* const text : {"e1m2:mse", "e2m1:mse", "e3m0:mse"}) {
        least = std::min<double>(least, error(quantize(w, spec::parse(text)).weights));
    }
    EXPECT_FLOAT_EQ(static_cast<float>(error(searched.weights)), static_cast<float>(least));
    EXPECT_LT(error(searched.weights), error(plain.weights));
    EXPECT_TRUE(quantize_embeddings(w, spec::parse("fp4:search:e=e3m0")).weights ==
                quantize(w, spec::parse("e3m0:mse")).weights);
}

TEST(catalogue, every_grid_is_there) {
    matrix const w = random_matrix(3, 20, 1);
    auto const expect_bits = [&](std::string const& text, int bits) {
        EXPECT_EQ(quantize(w, spec::parse(text)).weights.bits, bits) << text;
    };
    for (int bits = 1; bits <= 8; ++bits) {
        expect_bits("int" + std::to_string(bits), bits);
        expect_bits("sym:int" + std::to_string(bits), bits);
    }
    for (int e = 1; e <= 7; ++e) {
        for (int m = 0; e + m <= 7; ++m) {
            expect_bits("e" + std::to_string(e) + "m" + std::to_string(m), 1 + e + m);
        }
    }
}

TEST(catalogue, layers_that_no_token_reached_are_an_error_unless_they_may_be_rounded) {
    matrix const w = random_matrix(6, 32, 1);
    for (char const* const text : {"int4:g16:gptq", "int4:g16:obq:zeros", "int4:owq=2", "int4:owq@5:rtn", "int4:clip",
                                   "int4:gptq:hadamard=16:a=int8", "fp4:search"}) {
        hessian const unseen(32);
        EXPECT_TRUE(
            contains(failure_message([&] { quantize(w, unseen, spec::parse(text)); }), "hessian: has seen no tokens"))
            << text;
        quantization const q = quantize(w, unseen, spec::parse(std::string(text) + ":or-rtn"));
        EXPECT_EQ(q.report.fallback, "no input was ever seen") << text;
        EXPECT_TRUE(q.weights.weak.empty());
        EXPECT_LT((dequantize(q.weights) - w).norm(), 0.2F * w.norm()) << text;
    }
    spec by_hand = spec::parse("int4:gptq");
    by_hand.gptq_options.damping = -5;
    EXPECT_EQ(failure_message([&] { quantize(w, hessian::of(correlated_inputs(50, 32, 1)), by_hand); }),
              "hessian: its damping is -5.000000, not finite and 0 or more");
}

TEST(catalogue, what_is_impossible_is_named_before_any_work) {
    struct {
        char const* text;
        char const* problem;
    } const cases[] = {
        {"e2m1:sym", "unknown grid 'e2m1' with 'sym'"},
        {"nf4:sym", "unknown grid 'nf4' with 'sym'"},
        {"e2m1:minmax", "minmax needs a grid with a zero point"},
        {"int4:sym:minmax", "minmax needs a grid with a zero point"},
        {"int3:owq@2.5", "weak columns cannot make fewer bits than a code has"},
        {"e4m3:owq@7.9", "weak columns cannot make fewer bits than a code has"},
        {"int1:sym:owq=2", "weak columns need a grid that has 0"},
        {"int4:search:paper", "paper needs floating-point grids"},
        {"fp4:a=int8@tensor:search:paper", "paper needs floating-point grids"},
        {"nf4:a=fp4:fpq:paper", "paper needs floating-point grids"},
    };
    matrix const w = random_matrix(3, 20, 1);
    for (auto const& c : cases) {
        spec const s = spec::parse(c.text);
        std::string const message = failure_message([&] { check(s); });
        EXPECT_TRUE(message.starts_with("specification '" + std::string(c.text) + "': ")) << message;
        EXPECT_TRUE(contains(message, c.problem)) << message;
        EXPECT_EQ(failure_message([&] { quantize(w, s); }), message);
    }
    spec unknown; // which only a program can ask for
    unknown.text = "by hand";
    unknown.grid.name = "int9";
    EXPECT_EQ(failure_message([&] { check(unknown); }), "specification 'by hand': unknown grid 'int9'");
    unknown.grid.name = "int4";
    unknown.input.grid.name = "fp5";
    EXPECT_EQ(failure_message([&] { check(unknown); }), "specification 'by hand': unknown grid 'fp5'");
    EXPECT_EQ(failure_message([&] { quantize(w, spec::parse("int4:gptq")); }),
              "specification 'int4:gptq': this solver needs a Hessian");
    EXPECT_EQ(failure_message([&] { quantize(w, spec::parse("int3:owq=2")); }),
              "specification 'int3:owq=2': this solver needs a Hessian");
    EXPECT_EQ(failure_message([&] { quantize(w, spec::parse("int3:owq=2:rtn")); }),
              "specification 'int3:owq=2:rtn': weak columns need a Hessian");
    hessian const h = hessian::of(correlated_inputs(50, 20, 1));
    for (auto const* const text : {"int3:owq=20", "int3:owq=20:rtn", "int3:owq=20:obq:g8"}) {
        EXPECT_NO_THROW(check(spec::parse(text)));
        EXPECT_EQ(failure_message([&] { quantize(w, h, spec::parse(text)); }),
                  "weak columns: 20 of 20 inputs are asked for; at least one must be left to quantize");
    }
    EXPECT_EQ(quantize(w, h, spec::parse("int3:owq=19")).weights.weak.count(), 19);
    std::string const crowded = failure_message([&] { quantize(w, h, spec::parse("int3:owq@15.9")); });
    EXPECT_TRUE(crowded.starts_with("weak columns: 15.9")) << crowded;
    EXPECT_EQ(failure_message([&] { quantize(w, h, spec::parse("int4:owq=2:qronos")); }),
              "specification 'int4:owq=2:qronos': this solver needs the inputs of the float model too "
              "(calibration::float_stream)");
    EXPECT_EQ(failure_message([&] { quantize(w, h, spec::parse("int4:gptaq")); }),
              "specification 'int4:gptaq': this solver needs the inputs of the float model too "
              "(calibration::float_stream)");
}

} // namespace

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <array>
#include <string>
#include <utility>

#include <gtest/gtest.h>

#include "detent/quantizer/catalogue.hpp"
#include "detent/quantizer/quantizer.hpp"
#include "io/failure_message.hpp"
#include "solver/correlated_inputs.hpp"

namespace {

using namespace detent;
using test::correlated_inputs;
using test::random_matrix;

/// The run-time quantizer does what the compile-time one does, bit for bit.
template <class Q> void expect_same(Q const& quantizer, char const* text) {
    matrix const w = random_matrix(20, 50, 1);
    hessian const h = hessian::of(correlated_inputs(200, 50, 1));
    spec const s = spec::parse(text);
    EXPECT_NO_THROW(check(s)) << text;
    auto const expected = [&] {
        if constexpr (std::same_as<typename Q::evidence, hessian>) {
            return quantizer(w, h);
        } else {
            EXPECT_TRUE(quantize(w, s).weights == quantizer(w).packed()) << text;
            return quantizer(w);
        }
    }();
    quantization const result = quantize(w, h, s);
    EXPECT_TRUE(result.weights == expected.packed()) << text;
    EXPECT_EQ(result.report.loss, expected.report().loss) << text;
}

TEST(catalogue, a_specification_means_its_types) {
    expect_same(quantizer<int_grid<4>>{}, "int4");
    expect_same(quantizer<int_grid<4>, per_group<16>>{}, "int4:g16:minmax:rtn:f16");
    expect_same(quantizer<int_grid<1>, per_tensor>{}, "int1:tensor");
    expect_same(quantizer<int_grid<8, zero::none>, per_block<8, 16>>{.format = float_format::bf16},
                "int8:sym:b8x16:bf16");
    expect_same(quantizer<int_grid<3>, per_channel, rtn, absmax_range>{}, "int3:absmax");
    expect_same(quantizer<int_grid<3, zero::none>, per_channel, rtn, mse_range>{}, "mse:sym:int3:channel");
    expect_same(quantizer<e2m1, per_group<32>>{.format = float_format::f32}, "fp4:g32:f32");
    expect_same(quantizer<fp_grid<3, 2>>{}, "e3m2");
    expect_same(quantizer<fp_grid<1, 0>>{}, "e1m0");
    expect_same(quantizer<fp_grid<7, 0>>{}, "e7m0");
    expect_same(quantizer<fp_grid<4, 3>>{}, "e4m3");
    expect_same(quantizer<e4m3>{}, "ocp-e4m3");
    expect_same(quantizer<e5m2>{}, "ocp-e5m2");
    expect_same(quantizer<nf4, per_group<16>>{}, "nf4:g16");
    expect_same(quantizer<ternary>{}, "ternary");
    expect_same(quantizer<int_grid<4>, per_channel, gptq<>>{}, "int4:gptq");
    expect_same(
        quantizer<int_grid<2>, per_group<16>, gptq<>, mse_range>{.solver = {.damping = 0.05, .activation_order = true}},
        "int2:g16:gptq:mse:act:damp=0.05");
    expect_same(quantizer<e2m1, per_group<16>, gptq<>>{.solver = {.static_groups = true}}, "e2m1:g16:gptq:static");
    expect_same(quantizer<int_grid<3>, per_group<16>, gptq<>>{.solver = {.stale_columns = 128}}, "int3:g16:gptq:stale");
}

TEST(catalogue, solvers_of_both_streams_are_there) {
    matrix const w = random_matrix(20, 50, 1);
    matrix const floats = correlated_inputs(200, 50, 1);
    layer_inputs known(50);
    known.add(0.9F * floats, floats);
    problem_of const p{int_grid<3>{}, per_channel{}, minmax_range{}};
    auto const codes = [&](char const* text) { return quantize(w, known, spec::parse(text)).weights; };
    EXPECT_TRUE(codes("int3:gptq") == pack(int_grid<3>{}, gptq<>{}.solve(w, known, p)));
    EXPECT_TRUE(codes("int3:gptaq") == pack(int_grid<3>{}, gptaq<>{}.solve(w, known, p)));
    qronos<> const half{.rounding = {.activation_order = true}, .strength = 0.5};
    EXPECT_TRUE(codes("int3:qronos:act:strength=0.5") == pack(int_grid<3>{}, half.solve(w, known, p)));
    EXPECT_TRUE(codes("int3:obq:zeros:damp=0.1") ==
                pack(int_grid<3>{}, obq{.damping = 0.1, .keep_zeros = true}.solve(w, known, p)));

    problem_of const searched{int_grid<3>{}, per_channel{}, truncated_range{}};
    auto const expect_weak = [&](char const* text, auto const& solver) {
        EXPECT_TRUE(codes(text) == pack(int_grid<3>{}, solver.solve(w, known, searched))) << text;
        EXPECT_EQ(codes(text).weak.count(), 2) << text;
    };
    expect_weak("int3:owq=2:gptaq", owq<gptaq<>>{.columns = 2});
    expect_weak("int3:owq=2:qronos:act:strength=0.5", owq<qronos<>>{.inner = half, .columns = 2});
    expect_weak("int3:owq@3.5:qronos:uncompensated", owq<qronos<>>{.columns = 2, .compensate = false});
    EXPECT_FALSE(codes("int3:owq=2:gptaq") == codes("int3:owq=2:qronos"));
    EXPECT_TRUE(codes("int3:owq=2") == quantize(w, known.hessian(), spec::parse("int3:owq=2")).weights);
    EXPECT_TRUE(codes("int3:owq=2:rtn") == quantize(w, known.hessian(), spec::parse("int3:owq=2:rtn")).weights);
}

TEST(catalogue, owqs_range_search_is_there_for_every_kind_of_grid) {
    expect_same(quantizer<int_grid<3>, per_channel, rtn, truncated_range>{}, "int3:truncated");
    expect_same(quantizer<int_grid<1>, per_tensor, rtn, truncated_range>{}, "int1:tensor:truncated");
    expect_same(quantizer<int_grid<3>, per_channel, gptq<>, truncated_range>{}, "int3:truncated:gptq");
    expect_same(quantizer<int_grid<4, zero::none>, per_channel, gptq<>, truncated_range>{}, "int4:sym:truncated:gptq");
    expect_same(quantizer<e2m1, per_channel, rtn, truncated_range>{}, "e2m1:truncated:rtn");
    expect_same(quantizer<e2m1, per_channel, gptq<>, truncated_range>{}, "e2m1:truncated:gptq");
    expect_same(quantizer<nf4, per_channel, rtn, truncated_range>{}, "nf4:truncated");
    expect_same(quantizer<nf4, per_channel, gptq<>, truncated_range>{}, "nf4:truncated:gptq");
    // Groups and blocks are searched in 40 steps.
    truncated_range const groups{.steps = 40};
    expect_same(quantizer<int_grid<3>, per_group<16>, rtn, truncated_range>{.range = groups}, "int3:g16:truncated");
    expect_same(quantizer<nf4, per_group<16>, gptq<>, truncated_range>{.range = groups}, "nf4:g16:truncated:gptq");
    expect_same(quantizer<int_grid<3>, per_block<4, 8>, rtn, truncated_range>{.range = groups}, "int3:b4x8:truncated");
}

TEST(catalogue, weak_columns_are_those_of_owq) {
    expect_same(quantizer<int_grid<3>, per_channel, owq<>, truncated_range>{.solver = {.columns = 2}}, "int3:owq=2");
    expect_same(quantizer<int_grid<3>, per_channel, owq<>>{.solver = {.columns = 2}}, "int3:owq=2:minmax");
    expect_same(quantizer<int_grid<4>, per_group<16>, owq<>, truncated_range>{.solver = {.columns = 2},
                                                                             .range = {.steps = 40}},
                "int4:owq=2:g16");
    expect_same(quantizer<int_grid<4, zero::none>, per_channel, owq<>, truncated_range>{.solver = {.columns = 3}},
                "int4:sym:owq=3");
    expect_same(quantizer<e2m1, per_channel, owq<>, truncated_range>{.solver = {.columns = 3}}, "e2m1:owq=3");
    expect_same(quantizer<nf4, per_channel, owq<>, truncated_range>{.solver = {.columns = 3}}, "nf4:owq=3");
    expect_same(quantizer<int_grid<3>, per_channel, owq<>, truncated_range>{
                    .solver = {.inner = {.damping = 0.1, .activation_order = true}, .columns = 2}},
                "int3:owq=2:act:damp=0.1");
    expect_same(quantizer<int_grid<3>, per_channel, owq<>, truncated_range>{
                    .solver = {.columns = 2, .format = float_format::bf16}, .format = float_format::bf16},
                "int3:owq=2:bf16");
    expect_same(quantizer<int_grid<3>, per_channel, owq<>, truncated_range>{.solver = {.columns = 2},
                                                                            .format = float_format::f32},
                "int3:owq=2:f32");
    expect_same(quantizer<int_grid<3>, per_channel, owq<>, truncated_range>{
                    .solver = {.columns = 12, .chosen_by = sensitivity::activation}},
                "int3:owq=12:by=activation");
    expect_same(quantizer<int_grid<3>, per_channel, owq<>, truncated_range>{
                    .solver = {.columns = 2, .compensate = false}},
                "int3:owq=2:uncompensated");
    expect_same(quantizer<int_grid<3>, per_channel, owq<rtn>, truncated_range>{.solver = {.columns = 2}},
                "int3:owq=2:rtn");
    expect_same(quantizer<int_grid<3>, per_channel, owq<obq>, truncated_range>{
                    .solver = {.inner = {.damping = 0.1, .keep_zeros = true}, .columns = 2}},
                "int3:owq=2:obq:zeros:damp=0.1");

    // Not one of these words is without effect.
    matrix const w = random_matrix(20, 50, 1);
    hessian const h = hessian::of(correlated_inputs(200, 50, 1));
    auto const result = [&](char const* text) { return quantize(w, h, spec::parse(text)).weights; };
    EXPECT_EQ(result("int3:owq=2").weak.count(), 2);
    EXPECT_EQ(result("int3:owq=2:f32").weak.format(), float_format::f16);
    EXPECT_EQ(result("int3:owq=2:bf16").weak.format(), float_format::bf16);
    EXPECT_FALSE(result("int3:owq=12:by=activation") == result("int3:owq=12"));
    EXPECT_FALSE(result("int3:owq=2:uncompensated") == result("int3:owq=2"));
    EXPECT_FALSE(result("int3:owq=2:act") == result("int3:owq=2"));
    EXPECT_FALSE(result("int3:owq=2:rtn") == result("int3:owq=2"));
    EXPECT_FALSE(result("int3:owq=2:minmax") == result("int3:owq=2"));
    truncated_range const fine{.steps = 100};
    EXPECT_FALSE(result("int3:g16:truncated") ==
                 (quantizer<int_grid<3>, per_group<16>, rtn, truncated_range>{.range = fine}(w).packed()));
}

TEST(catalogue, weak_columns_for_a_number_of_bits_are_counted_for_this_matrix) {
    matrix const w = random_matrix(20, 50, 1);
    hessian const h = hessian::of(correlated_inputs(200, 50, 1));
    for (auto const& [average, fixed] : {std::pair{"int3:owq@3.5", "int3:owq=2"}, std::pair{"int3:owq@4", "int3:owq=4"},
                                         std::pair{"int4:g16:owq@5:rtn", "int4:g16:owq=4:rtn"},
                                         std::pair{"int3:owq@3", "int3:truncated:gptq"}}) {
        spec const s = spec::parse(average);
        quantization const result = quantize(w, h, s);
        EXPECT_TRUE(result.weights == quantize(w, h, spec::parse(fixed)).weights) << average;
        EXPECT_EQ(result.weights.weak.count(),
                  weak_budget(bits_of(s), s.weak.bits, std::array{weak_share{shape_of(w)}}).front());
    }
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

TEST(catalogue, what_is_impossible_is_named_before_any_work) {
    struct {
        char const* text;
        char const* problem;
    } const cases[] = {
        {"int9", "unknown grid 'int9'"},
        {"int0", "unknown grid 'int0'"},
        {"e4m4", "unknown grid 'e4m4'"},
        {"e0m3", "unknown grid 'e0m3'"},
        {"fast", "unknown grid 'fast'"},
        {"e2m1:sym", "unknown grid 'e2m1' with 'sym'"},
        {"nf4:sym", "unknown grid 'nf4' with 'sym'"},
        {"e2m1:minmax", "minmax needs a grid with a zero point"},
        {"int4:sym:minmax", "minmax needs a grid with a zero point"},
        {"int9:owq=2", "unknown grid 'int9'"},
        {"int3:owq@2.5", "weak columns cannot make fewer bits than a code has"},
        {"e4m3:owq@7.9", "weak columns cannot make fewer bits than a code has"},
        {"int1:sym:owq=2", "weak columns need a grid that has 0"},
    };
    matrix const w = random_matrix(3, 20, 1);
    for (auto const& c : cases) {
        spec const s = spec::parse(c.text);
        std::string const message = failure_message([&] { check(s); });
        EXPECT_TRUE(message.starts_with("specification '" + std::string(c.text) + "': ")) << message;
        EXPECT_TRUE(contains(message, c.problem)) << message;
        EXPECT_EQ(failure_message([&] { quantize(w, s); }), message);
    }
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

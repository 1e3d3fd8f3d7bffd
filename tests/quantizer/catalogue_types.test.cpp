// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <concepts>

#include <gtest/gtest.h>

#include "detent/quantizer/activations.hpp"
#include "detent/quantizer/catalogue.hpp"
#include "detent/quantizer/layer_quantizer.hpp"
#include "detent/quantizer/quantizer.hpp"
#include "detent/scale/mse.hpp"
#include "detent/scale/truncated.hpp"
#include "detent/solver/clipped.hpp"
#include "detent/solver/searched.hpp"
#include "detent/solver/super_blocks.hpp"
#include "detent/solver/transformed.hpp"
#include "detent/transform/hadamard.hpp"
#include "solver/correlated_inputs.hpp"

// What words of specifications mean, as types.

namespace {

using namespace detent;
using test::correlated_inputs;
using test::random_matrix;

/// The same for a layer of which all inputs are known, and which may round them.
template <class Q>
void expect_same_layer(Q const& quantizer, matrix const& w, layer_inputs const& known, spec const& s) {
    quantization const expected = as_quantization(quantizer(w, known));
    quantization const result = quantize(w, known, s);
    EXPECT_TRUE(result.weights == expected.weights) << s.text;
    EXPECT_TRUE(result.input == expected.input) << s.text;
    EXPECT_EQ(result.report.loss, expected.report.loss) << s.text;
    EXPECT_EQ(result.report.clamped_scales, expected.report.clamped_scales) << s.text;
}

/// The run-time quantizer does what the compile-time one does, bit for bit.
template <class Q> void expect_same(Q const& quantizer, char const* text, index_t in = 50) {
    matrix const w = random_matrix(20, in, 1);
    layer_inputs const known = layer_inputs::of(correlated_inputs(200, in, 1));
    hessian const& h = known;
    spec const s = spec::parse(text);
    EXPECT_NO_THROW(check(s)) << text;
    if constexpr (std::same_as<typename Q::evidence, layer_inputs>) {
        expect_same_layer(quantizer, w, known, s);
        return;
    } else {
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
        EXPECT_EQ(result.report.clamped_scales, expected.report().clamped_scales) << text;
        EXPECT_FALSE(result.input) << text;
    }
}

TEST(catalogue_types, a_specification_means_its_types) {
    expect_same(quantizer<int_grid<4>>{}, "int4");
    expect_same(quantizer<int_grid<4>, per_group<16>>{}, "int4:g16:minmax:rtn:f16");
    expect_same(quantizer<int_grid<1>, per_tensor>{}, "int1:tensor");
    expect_same(quantizer<int_grid<1, zero::none>>{}, "int1:sym");
    expect_same(quantizer<int_grid<1, zero::none>, per_group<16>, gptq<>>{}, "int1:sym:g16:gptq");
    expect_same(quantizer<int_grid<1, zero::none>, per_channel, rtn, absmax_range>{}, "int1:sym:absmax");
    expect_same(quantizer<int_grid<2, zero::none>>{}, "int2:sym");
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

TEST(catalogue_types, scales_of_8_bits_go_with_everything) {
    auto const e8m0 = scale_format(scale_kind::e8m0);
    auto const nv = scale_format(scale_kind::ue4m3);
    expect_same(quantizer<e2m1, per_group<32>>{.format = e8m0}, "mxfp4");
    expect_same(quantizer<fp_grid<2, 3>, per_group<32>>{.format = e8m0}, "mxfp6-e2m3");
    expect_same(quantizer<fp_grid<3, 2>, per_group<32>>{.format = e8m0}, "mxfp6-e3m2");
    expect_same(quantizer<e4m3, per_group<32>>{.format = e8m0}, "mxfp8");
    expect_same(quantizer<e5m2, per_group<32>>{.format = e8m0}, "mxfp8-e5m2");
    expect_same(quantizer<e2m1, per_group<16>>{.format = nv}, "nvfp4");
    expect_same(quantizer<e2m1, per_group<16>, gptq<>, mse_range>{.format = nv}, "nvfp4:gptq:mse");
    expect_same(quantizer<e2m1, per_group<16>, obq>{.format = nv}, "nvfp4:obq");
    expect_same(quantizer<e2m1, per_group<32>, owq<>, truncated_range>{.solver = {.columns = 2},
                                                                       .range = {.steps = 40},
                                                                       .format = e8m0},
                "mxfp4:owq=2");
    expect_same(quantizer<int_grid<4>, per_block<8, 16>>{.format = nv}, "int4:b8x16:scale=e4m3");
    expect_same(quantizer<nf4, per_tensor>{.format = e8m0}, "nf4:tensor:scale=e8m0");
    expect_same(quantizer<int_grid<3>, per_channel, gptq<>>{.format = e8m0}, "int3:gptq:scale=e8m0");
}

TEST(catalogue_types, owqs_range_search_is_there_for_every_kind_of_grid) {
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

TEST(catalogue_types, weak_columns_are_those_of_owq) {
    expect_same(quantizer<int_grid<3>, per_channel, owq<>, truncated_range>{.solver = {.columns = 2}}, "int3:owq=2");
    expect_same(quantizer<int_grid<3>, per_channel, owq<>>{.solver = {.columns = 2}}, "int3:owq=2:minmax");
    expect_same(
        quantizer<int_grid<4>, per_group<16>, owq<>, truncated_range>{.solver = {.columns = 2}, .range = {.steps = 40}},
        "int4:owq=2:g16");
    expect_same(quantizer<int_grid<4, zero::none>, per_channel, owq<>, truncated_range>{.solver = {.columns = 3}},
                "int4:sym:owq=3");
    expect_same(quantizer<e2m1, per_channel, owq<>, truncated_range>{.solver = {.columns = 3}}, "e2m1:owq=3");
    expect_same(quantizer<nf4, per_channel, owq<>, truncated_range>{.solver = {.columns = 3}}, "nf4:owq=3");
    expect_same(
        quantizer<int_grid<3>, per_channel, owq<>, truncated_range>{
            .solver = {.inner = {.damping = 0.1, .activation_order = true}, .columns = 2}},
        "int3:owq=2:act:damp=0.1");
    expect_same(
        quantizer<int_grid<3>, per_channel, owq<>, truncated_range>{
            .solver = {.columns = 2, .format = float_format::bf16}, .format = float_format::bf16},
        "int3:owq=2:bf16");
    expect_same(quantizer<int_grid<3>, per_channel, owq<>, truncated_range>{.solver = {.columns = 2},
                                                                            .format = float_format::f32},
                "int3:owq=2:f32");
    expect_same(
        quantizer<int_grid<3>, per_channel, owq<>, truncated_range>{
            .solver = {.columns = 12, .chosen_by = sensitivity::activation}},
        "int3:owq=12:by=activation");
    expect_same(
        quantizer<int_grid<3>, per_channel, owq<>, truncated_range>{.solver = {.columns = 2, .compensate = false}},
        "int3:owq=2:uncompensated");
    expect_same(quantizer<int_grid<3>, per_channel, owq<rtn>, truncated_range>{.solver = {.columns = 2}},
                "int3:owq=2:rtn");
    expect_same(
        quantizer<int_grid<3>, per_channel, owq<obq>, truncated_range>{
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

TEST(catalogue_types, clips_and_maps_are_those_of_the_types) {
    expect_same(quantizer<int_grid<3>, per_channel, clipped<>>{}, "int3:clip");
    expect_same(quantizer<int_grid<3>, per_group<16>, clipped<gptq<>>>{}, "int3:g16:gptq:clip");
    expect_same(quantizer<e2m1, per_group<16>, clipped<obq>>{}, "e2m1:g16:obq:clip");
    expect_same(quantizer<int_grid<3>, per_channel, owq<clipped<gptq<>>>, truncated_range>{.solver = {.columns = 2}},
                "int3:owq=2:clip");
    expect_same(quantizer<int_grid<3>, per_channel, transformed<smooth<>>>{}, "int3:smooth");
    expect_same(quantizer<int_grid<3>, per_channel, transformed<smooth<>, gptq<>>>{.solver = {.transform = {0.75F}}},
                "int3:gptq:smooth=0.75");
    expect_same(quantizer<int_grid<3>, per_group<16>, transformed<hadamard<16>, gptq<>>>{},
                "int3:g16:gptq:hadamard=16");
    expect_same(quantizer<int_grid<3>, per_channel, transformed<hadamard<>, clipped<>>>{}, "int3:clip:hadamard");
    expect_same(quantizer<int_grid<4>, per_channel, transformed<power_of_two, gptq<>>>{}, "int4:gptq:shifts");
    expect_same(
        quantizer<e2m1, per_group<16>, transformed<smooth<>, transformed<hadamard<16>, gptq<>>>>{.format =
                                                                                                     scale_kind::ue4m3},
        "nvfp4:gptq:smooth:hadamard=16");
    expect_same(
        quantizer<int_grid<3>, per_channel, transformed<hadamard<16>, owq<>>, truncated_range>{
            .solver = {.inner = {.columns = 2}}},
        "int3:owq=2:hadamard=16");

    // Not one of these words is without effect.
    matrix const w = random_matrix(20, 50, 1);
    layer_inputs const known = layer_inputs::of(correlated_inputs(200, 50, 1));
    auto const result = [&](char const* text) { return quantize(w, known, spec::parse(text)).weights; };
    for (auto const* const text :
         {"int3:gptq:clip", "int3:gptq:smooth", "int3:gptq:smooth=0.75", "int3:gptq:hadamard=16", "int3:gptq:shifts"}) {
        EXPECT_FALSE(result(text) == result("int3:gptq")) << text;
    }
    EXPECT_FALSE(result("int3:gptq:smooth=0.75") == result("int3:gptq:smooth"));
}

TEST(catalogue_types, scales_of_two_levels_are_those_of_the_types) {
    expect_same(quantizer<int_grid<4>, per_group<32>, super_blocks<gptq<>>>{.format = float_format::f32}, "q4_k:gptq",
                256);
    expect_same(quantizer<int_grid<3, zero::none>, per_group<16>, super_blocks<>>{.format = float_format::f32}, "q3_k",
                256);
}

TEST(catalogue_types, rounded_inputs_are_those_of_the_types) {
    using groups_of_16 = activations<int_grid<4>, per_group<16>>;
    expect_same(quantizer<int_grid<4>, per_channel, gptq<>, minmax_range, groups_of_16>{}, "int4:gptq:a=int4@g16");
    expect_same(quantizer<int_grid<4>, per_channel, rtn, minmax_range, groups_of_16>{}, "int4:a=int4@g16");
    using mx = activations<e2m1, per_group<32>>;
    expect_same(quantizer<e2m1, per_group<32>, gptq<>, absmax_range, mx>{.activations = {.format = scale_kind::e8m0},
                                                                         .format = scale_kind::e8m0},
                "mxfp4:gptq:a=mxfp4");
    using nv = activations<e2m1, per_group<16>>;
    expect_same(
        quantizer<e2m1, per_group<16>, transformed<hadamard<16>, gptq<>>, absmax_range, nv>{
            .activations = {.format = scale_kind::ue4m3}, .format = scale_kind::ue4m3},
        "nvfp4:gptq:hadamard=16:a=nvfp4");
    using static_int8 = activations<int_grid<8>, per_tensor>;
    expect_same(quantizer<int_grid<4>, per_channel, gptq<>, minmax_range, static_int8>{}, "int4:gptq:a=int8@tensor");
    expect_same(quantizer<int_grid<4>, per_channel, qronos<>, minmax_range, static_int8>{},
                "int4:qronos:a=int8@tensor");
    expect_same(quantizer<int_grid<4>, per_channel, transformed<smooth<>, gptq<>>, minmax_range, static_int8>{},
                "int4:gptq:smooth:a=int8@tensor");
    using static_fp4 = activations<e2m1, per_tensor>;
    expect_same(quantizer<e2m1, per_channel, searched<>, absmax_range, static_fp4>{}, "e2m1:search:a=e2m1@tensor");
    expect_same(quantizer<e2m1, per_channel, searched<gptq<>>, absmax_range, static_fp4>{.solver = {.shifted = true}},
                "e2m1:fpq:gptq:a=e2m1");
}

TEST(catalogue_types, searches_are_those_of_the_types) {
    expect_same(quantizer<int_grid<3>, per_group<16>, searched<>>{}, "int3:g16:search");
    expect_same(quantizer<int_grid<3>, per_channel, searched<gptq<>>>{}, "int3:gptq:search");
    expect_same(quantizer<int_grid<3>, per_channel, searched<gptq<>>>{.solver = {.metric = output_metric::absolute}},
                "int3:gptq:search:metric=absolute");
    expect_same(
        quantizer<int_grid<3>, per_group<16>, searched<owq<>>, truncated_range>{.solver = {.inner = {.columns = 2}},
                                                                                .range = {.steps = 40}},
        "int3:owq=2:search:g16");
    expect_same(quantizer<one_of<e2m1, fp_grid<1, 2>, fp_grid<3, 0>>, per_group<16>, searched<gptq<>>>{},
                "fp4:g16:search:gptq");
    expect_same(quantizer<e2m1, per_channel, transformed<hadamard<16>, searched<>>>{}, "e2m1:search:hadamard=16");
    matrix const w = random_matrix(20, 50, 1);
    layer_inputs const known = layer_inputs::of(correlated_inputs(200, 50, 1));
    EXPECT_FALSE(quantize(w, known, spec::parse("int3:search:metric=absolute")).weights ==
                 quantize(w, known, spec::parse("int3:search")).weights);
}

} // namespace

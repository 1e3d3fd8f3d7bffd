// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "detent/quantizer/parse_spec.hpp"
#include "io/failure_message.hpp"

namespace {

using namespace detent;

TEST(parse_spec, a_grid_alone_has_defaults) {
    spec const s = spec::parse("int4");
    EXPECT_EQ(s.text, "int4");
    EXPECT_EQ(s.grid.name, "int4");
    EXPECT_FALSE(s.grid.symmetric);
    EXPECT_EQ(s.granularity, (per_tile{1, 0}));
    EXPECT_EQ(s.range, spec::range_kind::automatic);
    EXPECT_EQ(s.solver, spec::solver_kind::rtn);
    EXPECT_EQ(s.format, float_format::f16);
    EXPECT_EQ(s.gptq_options, gptq<>{});
    EXPECT_FALSE(s.weak.wanted);
    EXPECT_EQ(s.weak.columns, 0);
    EXPECT_EQ(s.weak.bits, 0);
}

TEST(parse_spec, reads_all_parts_in_any_order) {
    for (auto const* const text : {"int3:sym:g64:gptq:act:static:stale:damp=0.05:mse:bf16",
                                   "bf16:mse:damp=0.05:stale:static:act:gptq:g64:sym:int3"}) {
        spec const s = spec::parse(text);
        EXPECT_EQ(s.text, text);
        EXPECT_EQ(s.grid.name, "int3");
        EXPECT_TRUE(s.grid.symmetric);
        EXPECT_EQ(s.granularity, (per_tile{1, 64}));
        EXPECT_EQ(s.range, spec::range_kind::mse);
        EXPECT_EQ(s.solver, spec::solver_kind::gptq);
        EXPECT_EQ(s.format, float_format::bf16);
        EXPECT_TRUE(s.gptq_options.activation_order);
        EXPECT_TRUE(s.gptq_options.static_groups);
        EXPECT_EQ(s.gptq_options.stale_columns, 128);
        EXPECT_EQ(s.gptq_options.damping, 0.05);
    }
}

TEST(parse_spec, granularities) {
    EXPECT_EQ(spec::parse("int4:channel").granularity, (per_tile{1, 0}));
    EXPECT_EQ(spec::parse("int4:tensor").granularity, (per_tile{0, 0}));
    EXPECT_EQ(spec::parse("int4:g1").granularity, (per_tile{1, 1}));
    EXPECT_EQ(spec::parse("int4:b32x16").granularity, (per_tile{32, 16}));
}

TEST(parse_spec, other_words) {
    EXPECT_EQ(spec::parse("fp4").grid.name, "e2m1");
    EXPECT_EQ(spec::parse("ocp-e4m3").grid.name, "ocp-e4m3");
    EXPECT_EQ(spec::parse("nf4:absmax").range, spec::range_kind::absmax);
    EXPECT_EQ(spec::parse("int4:minmax").range, spec::range_kind::minmax);
    EXPECT_EQ(spec::parse("truncated:int4").range, spec::range_kind::truncated);
    EXPECT_EQ(spec::parse("int4:rtn").solver, spec::solver_kind::rtn);
    EXPECT_EQ(spec::parse("int4:f32").format, float_format::f32);
    EXPECT_EQ(spec::parse("int4:f16").format, float_format::f16);
    EXPECT_EQ(spec::parse("int4:gptq:damp=0").gptq_options.damping, 0);
    EXPECT_EQ(spec::parse("int4:damp=1e-3:gptq").gptq_options.damping, 1e-3);
}

TEST(parse_spec, scales_of_8_bits) {
    EXPECT_EQ(spec::parse("int4:scale=e8m0").format, scale_kind::e8m0);
    EXPECT_EQ(spec::parse("scale=e4m3:e4m3").format, scale_kind::ue4m3);
    EXPECT_EQ(spec::parse("scale=e4m3:e4m3").grid.name, "e4m3");
    struct {
        char const* text;
        char const* grid;
        index_t width;
        scale_kind kind;
    } const cases[] = {
        {"mxfp4", "e2m1", 32, scale_kind::e8m0},          {"mxfp6-e2m3", "e2m3", 32, scale_kind::e8m0},
        {"mxfp6-e3m2", "e3m2", 32, scale_kind::e8m0},     {"mxfp8", "ocp-e4m3", 32, scale_kind::e8m0},
        {"mxfp8-e5m2", "ocp-e5m2", 32, scale_kind::e8m0}, {"gptq:act:nvfp4:mse", "e2m1", 16, scale_kind::ue4m3},
    };
    for (auto const& c : cases) {
        spec const s = spec::parse(c.text);
        EXPECT_EQ(s.grid.name, c.grid) << c.text;
        EXPECT_EQ(s.granularity, (per_tile{1, c.width})) << c.text;
        EXPECT_EQ(s.format, c.kind) << c.text;
    }
}

TEST(parse_spec, words_of_ggml_are_grids_with_scales_of_two_levels) {
    struct {
        char const* text;
        char const* grid;
        bool symmetric;
        index_t width;
    } const cases[] = {{"q2_k", "int2", false, 16},
                       {"q3_k:gptq", "int3", true, 16},
                       {"q4_k:gptq:act", "int4", false, 32},
                       {"q5_k:obq", "int5", false, 32},
                       {"q6_k", "int6", true, 16}};
    for (auto const& c : cases) {
        spec const s = spec::parse(c.text);
        EXPECT_TRUE(s.super_blocks) << c.text;
        EXPECT_EQ(s.grid.name, c.grid) << c.text;
        EXPECT_EQ(s.grid.symmetric, c.symmetric) << c.text;
        EXPECT_EQ(s.granularity, (per_tile{1, c.width})) << c.text;
        EXPECT_EQ(s.format, float_format::f32) << c.text;
    }
    EXPECT_FALSE(spec::parse("int4:g32:f32").super_blocks);
    for (char const* const wrong : {"q4_k:g64", "q4_k:f16", "q4_k:mse", "q4_k:clip", "q4_k:owq=2", "q4_k:gptaq",
                                    "q4_k:lwc", "q4_k:qronos", "q4_k:int4", "q3_k:search"}) {
        EXPECT_THROW(spec::parse(wrong), error) << wrong;
    }
}

TEST(parse_spec, weak_columns_have_defaults) {
    spec const fixed = spec::parse("int3:owq=4");
    EXPECT_TRUE(fixed.weak.wanted);
    EXPECT_EQ(fixed.weak.columns, 4);
    EXPECT_EQ(fixed.weak.bits, 0);
    spec const average = spec::parse("int3:owq@3.1");
    EXPECT_TRUE(average.weak.wanted);
    EXPECT_EQ(average.weak.columns, 0);
    EXPECT_EQ(average.weak.bits, 3.1);
    for (spec const& s : {fixed, average}) {
        EXPECT_EQ(s.grid.name, "int3");
        EXPECT_EQ(s.solver, spec::solver_kind::gptq);
        EXPECT_EQ(s.gptq_options, gptq<>{});
        EXPECT_EQ(s.range, spec::range_kind::automatic);
        EXPECT_EQ(s.format, float_format::f16);
        EXPECT_TRUE(s.weak.layers.empty());
        EXPECT_EQ(s.weak.rule, weak_rule::exact);
        EXPECT_EQ(s.weak.chosen_by, sensitivity::output_error);
        EXPECT_TRUE(s.weak.compensate);
    }
}

TEST(parse_spec, weak_columns_have_options_in_any_order) {
    for (auto const* const text :
         {"int3:owq@3.01:in=q+k+down:by=activation:uncompensated:published:act:damp=0.1:bf16",
          "bf16:damp=0.1:act:published:uncompensated:by=activation:in=q+k+down:owq@3.01:int3"}) {
        spec const s = spec::parse(text);
        EXPECT_EQ(s.grid.name, "int3");
        EXPECT_EQ(s.weak.bits, 3.01);
        EXPECT_EQ(s.weak.layers, (std::vector<std::string>{"q", "k", "down"}));
        EXPECT_EQ(s.weak.chosen_by, sensitivity::activation);
        EXPECT_FALSE(s.weak.compensate);
        EXPECT_EQ(s.weak.rule, weak_rule::published);
        EXPECT_EQ(s.solver, spec::solver_kind::gptq);
        EXPECT_TRUE(s.gptq_options.activation_order);
        EXPECT_EQ(s.gptq_options.damping, 0.1);
        EXPECT_EQ(s.format, float_format::bf16);
    }
    EXPECT_EQ(spec::parse("int4:owq=2:in=q+k+v+o+gate+up+down").weak.layers.size(), 7U);
    EXPECT_EQ(spec::parse("int4:owq=2:in=gate").weak.layers, std::vector<std::string>{"gate"});
    EXPECT_EQ(spec::parse("int4:owq=2:minmax").range, spec::range_kind::minmax);
}

TEST(parse_spec, weak_columns_go_with_any_solver) {
    using kind = spec::solver_kind;
    using words = std::pair<char const*, kind>;
    for (auto const& [text, expected] :
         {words{"int3:owq=2:rtn", kind::rtn}, words{"rtn:owq@3.1:int3", kind::rtn},
          words{"gptq:int3:owq=2", kind::gptq}, words{"int3:owq=2:obq", kind::obq},
          words{"int3:gptaq:owq=2", kind::gptaq}, words{"int3:owq@3.1:qronos", kind::qronos}}) {
        EXPECT_EQ(spec::parse(text).solver, expected) << text;
        EXPECT_TRUE(spec::parse(text).weak.wanted) << text;
    }
    EXPECT_TRUE(spec::parse("int3:owq=2:obq:zeros").obq_options.keep_zeros);
    EXPECT_EQ(spec::parse("int3:owq=2:qronos:strength=0.5").strength, 0.5);
    EXPECT_EQ(spec::parse("int3:damp=0.2:owq=2").gptq_options.damping, 0.2);
}

TEST(parse_spec, inputs) {
    spec const none = spec::parse("int4");
    EXPECT_EQ(none.input.grid.name, "");
    EXPECT_FALSE(none.input.fixed());
    EXPECT_FALSE(none.search);
    EXPECT_FALSE(none.reads_floats());
    struct {
        char const* text;
        char const* grid;
        bool symmetric;
        bool any_split;
        bool fixed;
        bool floats;
    } const cases[] = {
        {"int4:a=int8", "int8", false, false, false, false},
        {"int4:a=int8@token", "int8", false, false, false, false},
        {"a=int8sym:int4", "int8", true, false, false, false},
        {"int4:a=int8sym@tensor", "int8", true, false, true, true},
        {"int4:sym:a=int8", "int8", false, false, false, false},
        {"int4:a=fp4", "e2m1", false, true, false, false},
        {"int4:a=fp8@tensor", "e4m3", false, true, true, true},
        {"a=e3m0@tensor:int4:gptq", "e3m0", false, false, true, true},
        {"int4:a=ocp-e4m3", "ocp-e4m3", false, false, false, false},
        {"fp4:a=fp4:search", "e2m1", false, true, false, true}, // a search keeps what was asked for
        {"search:fp4:a=fp6", "e3m2", false, true, false, true},
        {"fp4:a=fp4@g16:search", "e2m1", false, true, false, true},
        {"fp4:a=fp4@token:search", "e2m1", false, true, false, true},
        {"fp4:a=fp4@tensor:search", "e2m1", false, true, true, true},
        {"fp4:search", "", false, false, false, true},
    };
    for (auto const& c : cases) {
        spec const s = spec::parse(c.text);
        EXPECT_EQ(s.input.grid.name, c.grid) << c.text;
        EXPECT_EQ(s.input.grid.symmetric, c.symmetric) << c.text;
        EXPECT_EQ(s.input.grid.any_split, c.any_split) << c.text;
        EXPECT_EQ(s.input.fixed(), c.fixed) << c.text;
        EXPECT_EQ(s.reads_floats(), c.floats) << c.text;
        EXPECT_FALSE(s.input.shifted) << c.text;
    }
    EXPECT_TRUE(spec::parse("int4:sym:a=int8").grid.symmetric);
    EXPECT_TRUE(spec::parse("int4sym:a=int8").grid.symmetric);
    EXPECT_FALSE(spec::parse("int4:a=int8sym").grid.symmetric);
}

TEST(parse_spec, who_shares_a_scale_of_inputs) {
    EXPECT_EQ(spec::parse("int4:a=int8").input.width, 0);
    EXPECT_EQ(spec::parse("int4:a=int8").input.format, float_format::f32);
    EXPECT_EQ(spec::parse("int4:a=int8@tensor").input.width, 0);
    spec const groups = spec::parse("int4:a=int8sym@g64");
    EXPECT_EQ(groups.input.grid, (grid_name{"int8", true, false}));
    EXPECT_EQ(groups.input.width, 64);
    EXPECT_EQ(groups.input.format, float_format::f32);
    EXPECT_TRUE(groups.input.dynamic);
    struct {
        char const* text;
        char const* grid;
        index_t width;
        scale_kind kind;
    } const cases[] = {
        {"int4:a=mxfp4", "e2m1", 32, scale_kind::e8m0},           {"a=mxfp6-e2m3:int4", "e2m3", 32, scale_kind::e8m0},
        {"int4:a=mxfp6-e3m2", "e3m2", 32, scale_kind::e8m0},      {"int4:a=mxfp8", "ocp-e4m3", 32, scale_kind::e8m0},
        {"mxfp8:a=mxfp8-e5m2", "ocp-e5m2", 32, scale_kind::e8m0}, {"nvfp4:a=nvfp4", "e2m1", 16, scale_kind::ue4m3},
    };
    for (auto const& c : cases) {
        spec const s = spec::parse(c.text);
        EXPECT_EQ(s.input.grid, (grid_name{c.grid, false, false})) << c.text;
        EXPECT_EQ(s.input.width, c.width) << c.text;
        EXPECT_EQ(s.input.format, c.kind) << c.text;
        EXPECT_TRUE(s.input.dynamic) << c.text;
    }
    EXPECT_EQ(spec::parse("int4:a=mxfp4").granularity, (per_tile{1, 0})); // of weights
    EXPECT_EQ(spec::parse("int4:a=mxfp4").format, float_format::f16);
}

TEST(parse_spec, inputs_can_be_scaled_and_rotated) {
    spec const none = spec::parse("int4:a=int4");
    EXPECT_FALSE(none.smooth);
    EXPECT_FALSE(none.power_of_two);
    EXPECT_EQ(none.hadamard, 0);
    spec const smoothed = spec::parse("hadamard:int4:a=int4:smooth");
    EXPECT_EQ(smoothed.smooth, 0.5);
    EXPECT_EQ(smoothed.hadamard, 128);
    EXPECT_EQ(spec::parse("int4:smooth=0").smooth, 0.0);
    EXPECT_EQ(spec::parse("int4:smooth=0.75").smooth, 0.75);
    spec const shifted = spec::parse("fp4:a=fp4:shifts:hadamard=65536:gptq");
    EXPECT_TRUE(shifted.power_of_two);
    EXPECT_FALSE(shifted.input.shifted);
    EXPECT_EQ(shifted.hadamard, 65536);
    EXPECT_EQ(spec::parse("int4:hadamard=2").hadamard, 2);
}

TEST(parse_spec, clipping_of_single_layers_goes_with_any_solver) {
    EXPECT_FALSE(spec::parse("int4").clip);
    for (auto const* const text : {"int4:clip", "int4:clip:g64:gptq", "clip:int3:owq=2", "int3:clip:obq:bf16",
                                   "int2:clip:gptaq:a=int8@tensor", "int4:clip:smooth:hadamard"}) {
        EXPECT_TRUE(spec::parse(text).clip) << text;
        EXPECT_FALSE(spec::parse(text).learning) << text;
    }
}

TEST(parse_spec, words_do_not_disturb_those_before) {
    spec const s = spec::parse("int4:b32x16:gptq:bf16:damp=0.5");
    EXPECT_EQ(s.granularity, (per_tile{32, 16}));
    EXPECT_EQ(s.format, float_format::bf16);
}

TEST(parse_spec, searches) {
    using spacing = range_candidates::spacing;
    spec const search = spec::parse("fp4:a=fp4@tensor:search");
    EXPECT_TRUE(search.search && search.input.fixed());
    EXPECT_FALSE(search.input.shifted);
    EXPECT_EQ(search.candidates, range_candidates{});
    EXPECT_EQ(search.metric, output_metric::squares);
    for (auto const* const text : {"fp4:a=fp4:fpq:paper:e=fp8", "e=fp8:paper:fpq:a=fp4:fp4"}) {
        spec const s = spec::parse(text);
        EXPECT_TRUE(s.search && s.input.shifted && s.input.fixed()) << text;
        EXPECT_FALSE(s.input.folded) << text;
        EXPECT_EQ(s.candidates.spaced, spacing::bias) << text;
        EXPECT_TRUE(s.grid.any_split && s.input.grid.any_split && s.embeddings.any_split) << text;
        EXPECT_EQ(s.embeddings.name, "e4m3") << text;
    }
    EXPECT_TRUE(spec::parse("fp4:a=fp4:fpq:fold").input.folded);
    EXPECT_TRUE(spec::parse("fp4:fpq:a=fp4@tensor").input.fixed());
    EXPECT_EQ(spec::parse("fp4:a=fp4@tensor:search:metric=cosine").metric, output_metric::cosine);
    EXPECT_EQ(spec::parse("fp4:search:metric=absolute").metric, output_metric::absolute);
    EXPECT_EQ(spec::parse("fp4:a=fp4:metric=weighted_squares:search").metric, output_metric::weighted_squares);
    EXPECT_EQ(spec::parse("metric=doubly_weighted:search:fp4").metric, output_metric::doubly_weighted);
    EXPECT_EQ(spec::parse("fp4:a=fp4:fpq:metric=squares").metric, output_metric::squares);
    EXPECT_EQ(spec::parse("int4:e=int8sym").embeddings, (grid_name{"int8", true, false}));
}

TEST(parse_spec, blocks_can_be_learned) {
    EXPECT_FALSE(spec::parse("int4:gptq").learning);
    spec const s = spec::parse("int4:g64:a=int4:let:lwc:aug:epochs=40:alpha=0.75:gptq");
    EXPECT_EQ(s.learning,
              (learning_options{.clip = true, .transform = true, .auxiliary = true, .epochs = 40, .alpha = 0.75}));
    EXPECT_EQ(s.solver, spec::solver_kind::gptq);
    EXPECT_EQ(spec::parse("int3:lwc").learning, (learning_options{.clip = true}));
    EXPECT_FALSE(spec::parse("int3:let").learning.clip);
    EXPECT_EQ(spec::parse("int4:let=down:lwc").learning,
              (learning_options{.clip = true, .transform = true, .hidden = true}));
    EXPECT_EQ(spec::parse("int4:let:p=8").learning, (learning_options{.transform = true, .probability_bits = 8}));
    EXPECT_EQ(spec::parse("int4:omniquant").learning, (learning_options{.published = true}));
    EXPECT_EQ(spec::parse("int4:omniquant:epochs=5:gptq").learning, (learning_options{.published = true, .epochs = 5}));
}

TEST(parse_spec, what_it_does_not_understand_is_named) {
    struct {
        char const* text;
        char const* problem;
    } const cases[] = {
        {"", "empty part ''"},
        {":", "empty part ''"},
        {"int4:", "empty part ''"},
        {"int4::g128", "empty part ''"},
        {"int4:e2m1", "names a second grid, 'e2m1'"},
        {"int4:fast", "unknown part 'fast'"},
        {"fast", "unknown part 'fast'"},
        {"gptp:int4", "unknown part 'gptp'"},
        {"int9", "unknown part 'int9'"},
        {"e4m4", "unknown part 'e4m4'"},
        {"e0m3:sym", "unknown part 'e0m3'"},
        {"nf4sym", "unknown part 'nf4sym'"},
        {"int4:nf4", "names a second grid, 'nf4'"},
        {"int4:g0", "unknown part 'g0'"},
        {"int4:g-8", "unknown part 'g-8'"},
        {"int4:g", "unknown part 'g'"},
        {"int4:g12k", "unknown part 'g12k'"},
        {"int4:g99999999999999999999", "unknown part 'g99999999999999999999'"},
        {"int4:b32x", "unknown part 'b32x'"},
        {"int4:bx32", "unknown part 'bx32'"},
        {"int4:b32x0", "unknown part 'b32x0'"},
        {"int4:b32", "unknown part 'b32'"},
        {"int4:b3 x3", "unknown part 'b3 x3'"},
        {"int4:GPTQ", "unknown part 'GPTQ'"},
        {"int4:damp=", "not a damping between 0 and 100: 'damp='"},
        {"int4:damp=nan", "'damp=nan'"},
        {"int4:damp=-1", "'damp=-1'"},
        {"int4:damp=inf", "'damp=inf'"},
        {"int4:damp=1x", "'damp=1x'"},
        {"g128:gptq", "names no grid"},
        {"int4:act", "act needs gptq or its kin"},
        {"int4:obq:static", "static needs gptq or its kin"},
        {"int4:damp=-5:gptq", "not a damping between 0 and 100: 'damp=-5'"},
        {"int4:damp=0.1:rtn", "damp needs a solver other than rtn"},
        {"int4:damp=0.1", "damp needs a solver other than rtn"},
        {"int4:rtn:owq=2:damp=0.1", "damp needs a solver other than rtn"},
        {"int4:or-rtn", "or-rtn needs a solver other than rtn, owq, clip or a search"},
        {"int4:gptq:damp=0.1:damp=0.2", "names a second damping, 'damp=0.2'"},
        {"int4:gptaq:strength=1.5", "not a strength between 0 and 1: 'strength=1.5'"},
        {"int4:gptaq:strength=1:strength=1", "names a second strength, 'strength=1'"},
        {"int4:gptq:strength=1", "strength needs gptaq or qronos"},
        {"int4:gptq:zeros", "zeros needs obq"},
        {"int4:g64:g128", "names a second granularity, 'g128'"},
        {"int4:channel:tensor", "names a second granularity, 'tensor'"},
        {"int4:mse:minmax", "names a second range, 'minmax'"},
        {"int4:rtn:gptq", "names a second solver, 'gptq'"},
        {"int4:f16:f32", "names a second format of scales, 'f32'"},
        {"mxfp4:g64", "names a second granularity, 'g64'"},
        {"g32:mxfp4", "names a second granularity, 'mxfp4'"},
        {"nvfp4:channel", "names a second granularity, 'channel'"},
        {"nvfp4:scale=e8m0", "names a second format of scales, 'scale=e8m0'"},
        {"f16:nvfp4", "names a second format of scales, 'nvfp4'"},
        {"scale=e8m0:int4:bf16", "names a second format of scales, 'bf16'"},
        {"mxfp4:nvfp4", "names a second grid, 'nvfp4'"},
        {"int4:mxfp4", "names a second grid, 'mxfp4'"},
        {"mxfp4:int4", "names a second grid, 'int4'"},
        {"int4:scale=f8", "unknown part 'scale=f8'"},
        {"scale=e8m0", "names no grid"},
        {"int4:mse:truncated", "names a second range, 'truncated'"},
        {"int4:truncated:truncated", "names a second range, 'truncated'"},
        {"int3:owq", "unknown part 'owq'"},
        {"int3:owq=", "not a number of columns: 'owq='"},
        {"int3:owq=0", "not a number of columns: 'owq=0'"},
        {"int3:owq=-2", "not a number of columns: 'owq=-2'"},
        {"int3:owq=2.5", "not a number of columns: 'owq=2.5'"},
        {"int3:owq=99999999999999999999", "not a number of columns: 'owq=99999999999999999999'"},
        {"int3:owq@", "not a number of bits: 'owq@'"},
        {"int3:owq@0", "not a number of bits: 'owq@0'"},
        {"int3:owq@-3.1", "not a number of bits: 'owq@-3.1'"},
        {"int3:owq@16", "not a number of bits: 'owq@16'"},
        {"int3:owq@inf", "not a number of bits: 'owq@inf'"},
        {"int3:owq@nan", "not a number of bits: 'owq@nan'"},
        {"int3:owq@3.1b", "not a number of bits: 'owq@3.1b'"},
        {"int3:owq=2:owq=2", "names a second number of weak columns, 'owq=2'"},
        {"int3:owq=2:owq@3.1", "names a second number of weak columns, 'owq@3.1'"},
        {"int3:owq@3.1:owq=2", "names a second number of weak columns, 'owq=2'"},
        {"int3:owq=2:in=", "not among q, k, v, o, gate, up, down: 'in='"},
        {"int3:owq=2:in=fc1", "not among q, k, v, o, gate, up, down: 'in=fc1'"},
        {"int3:owq=2:in=Q", "not among q, k, v, o, gate, up, down: 'in=Q'"},
        {"int3:owq=2:in=q+", "not among q, k, v, o, gate, up, down: 'in=q+'"},
        {"int3:owq=2:in=q,k", "not among q, k, v, o, gate, up, down: 'in=q,k'"},
        {"int3:owq=2:in=q+k+query", "not among q, k, v, o, gate, up, down: 'in=q+k+query'"},
        {"int3:owq=2:in=q:in=k", "names a second list of layers, 'in=k'"},
        {"int3:owq=2:by=weight", "unknown part 'by=weight'"},
        {"int3:in=q", "in needs owq"},
        {"int3:gptq:by=activation", "by=activation needs owq"},
        {"int3:uncompensated", "uncompensated needs owq"},
        {"int3:published", "published needs owq@ and a number of bits"},
        {"int3:owq=2:published", "published needs owq@ and a number of bits"},
        {"int3:owq=2:rtn:damp=0.1", "damp needs a solver other than rtn"},
        {"int3:owq=2:rtn:act", "act needs gptq or its kin"},
        {"int3:stale", "stale needs gptq or its kin"},
        {"int3:owq=2:zeros", "zeros needs obq"},
        {"int3:owq=2:strength=0.5", "strength needs gptaq or qronos"},
        {"owq=2", "names no grid"},
        {"int4:a=", "not a grid, alone or with @token, @tensor or @g32: 'a='"},
        {"int4:a=@tensor", "not a grid, alone or with @token, @tensor or @g32: 'a=@tensor'"},
        {"int4:a=int8@", "not a grid, alone or with @token, @tensor or @g32: 'a=int8@'"},
        {"int4:a=int8@row", "not a grid, alone or with @token, @tensor or @g32: 'a=int8@row'"},
        {"int4:a=int8@token@tensor", "not a grid, alone or with @token, @tensor or @g32: 'a=int8@token@tensor'"},
        {"int4:a=int8:a=int8", "names a second grid of inputs, 'a=int8'"},
        {"int4:a=int9", "not a grid, alone or with @token, @tensor or @g32: 'a=int9'"},
        {"int4:a=int8@g0", "not a grid, alone or with @token, @tensor or @g32: 'a=int8@g0'"},
        {"int4:a=int8@g", "not a grid, alone or with @token, @tensor or @g32: 'a=int8@g'"},
        {"int4:a=mxfp4@tensor", "not a grid, alone or with @token, @tensor or @g32: 'a=mxfp4@tensor'"},
        {"int4:a=mxfp4:a=int8", "names a second grid of inputs, 'a=int8'"},
        {"a=int8", "names no grid"},
        {"int4:e=", "names no grid: 'e='"},
        {"int4:e=e2m9", "names no grid: 'e=e2m9'"},
        {"int4:e=fp4:e=fp8", "names a second grid of embeddings, 'e=fp8'"},
        {"e=fp4", "names no grid"},
        {"fp4:search:search", "names a second search, 'search'"},
        {"fp4:search:fpq", "names a second search, 'fpq'"},
        {"fp4:a=fp4:fpq:search", "names a second search, 'search'"},
        {"fp4:fpq", "fpq needs inputs with one range, such as a=fp4"},
        {"fp4:a=fp4@token:fpq", "fpq needs inputs with one range, such as a=fp4, without @token or @g32"},
        {"fp4:fpq:a=fp4@g32", "fpq needs inputs with one range, such as a=fp4, without @token or @g32"},
        {"fp4:fpq:a=mxfp4", "fpq needs inputs with one range"},
        {"fp4:a=fp4:search:fold", "fold needs fpq"},
        {"int4:aug", "aug needs lwc, let or omniquant"},
        {"int4:alpha=0.5", "alpha needs lwc, let or omniquant"},
        {"int4:epochs=3", "epochs needs lwc, let or omniquant"},
        {"int4:omniquant:lwc", "omniquant chooses lwc, let, aug and alpha itself, which must not be given"},
        {"int4:omniquant:alpha=0.7", "omniquant chooses lwc, let, aug and alpha itself, which must not be given"},
        {"int4:let=up", "'let=up'"},
        {"int4:p=8", "p needs lwc, let or omniquant"},
        {"int4:let:p=1", "not 2 to 8 bits: 'p=1'"},
        {"int4:let:alpha=1.5", "not between 0 and 1: 'alpha=1.5'"},
        {"int4:lwc:epochs=0", "not a number of epochs: 'epochs=0'"},
        {"int4:lwc:tensor", "lwc needs scales of rows or groups"},
        {"int4:b2x2:omniquant", "omniquant needs scales of rows or groups"},
        {"fp4:let:search", "let may not stand beside search or fpq"},
        {"fp4:a=fp4:fpq:lwc", "lwc needs inputs whose tokens have ranges of their own"},
        {"int4:let:a=int4@tensor", "let needs inputs whose tokens have ranges of their own"},
        {"int4:lwc:mse", "lwc chooses ranges itself, which must not be given"},
        {"mxfp4:lwc", "lwc needs scales of 16 bits or more"},
        {"int4:let:let=down", "names a second transform of channels, 'let=down'"},
        {"int4:lwc:epochs=3:epochs=4", "names a second number of epochs, 'epochs=4'"},
        {"fp4:paper", "paper needs search or fpq"},
        {"fp4:a=fp4@tensor:paper", "paper needs search or fpq"},
        {"fp4:a=fp4:metric=cosine", "metric needs search or fpq"},
        {"fp4:a=fp4:search:metric=huber", "not a metric: 'metric=huber'"},
        {"fp4:a=fp4:search:metric=cosine:metric=cosine", "names a second metric, 'metric=cosine'"},
        {"int4:clip:lwc", "clip may not stand beside lwc, let, omniquant, search or fpq"},
        {"int4:omniquant:clip", "clip may not stand beside lwc, let, omniquant, search or fpq"},
        {"int4:let:clip", "clip may not stand beside lwc, let, omniquant, search or fpq"},
        {"int4:search:clip", "clip may not stand beside lwc, let, omniquant, search or fpq"},
        {"fp4:clip:a=fp4:fpq", "clip may not stand beside lwc, let, omniquant, search or fpq"},
        {"int4:clip:mse", "clip chooses ranges itself, which must not be given"},
        {"mxfp4:clip", "clip needs scales of 16 bits or more"},
        {"int4:scale=e4m3:clip", "clip needs scales of 16 bits or more"},
        {"int4:smooth=1.5", "not an exponent between 0 and 1: 'smooth=1.5'"},
        {"int4:smooth=", "not an exponent between 0 and 1: 'smooth='"},
        {"int4:smooth:smooth=0.5", "names a second smoothing, 'smooth=0.5'"},
        {"int4:smooth:shifts", "smooth may not stand beside shifts"},
        {"int4:shifts:smooth=0.25", "shifts may not stand beside smooth"},
        {"fp4:a=fp4:fpq:shifts", "shifts may not stand beside fpq, which finds shifts of its own"},
        {"int4:hadamard=96", "not a power of two from 2 to 65536: 'hadamard=96'"},
        {"int4:hadamard=1", "not a power of two from 2 to 65536: 'hadamard=1'"},
        {"int4:hadamard=131072", "not a power of two from 2 to 65536: 'hadamard=131072'"},
        {"int4:hadamard=", "not a power of two from 2 to 65536: 'hadamard='"},
        {"int4:hadamard:hadamard", "names a second rotation, 'hadamard'"},
    };
    for (auto const& c : cases) {
        std::string const message = failure_message([&] { spec::parse(c.text); });
        EXPECT_TRUE(message.starts_with("specification '" + std::string(c.text) + "': ")) << message;
        EXPECT_TRUE(contains(message, c.problem)) << message;
    }
}

} // namespace

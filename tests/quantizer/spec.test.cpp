// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "detent/quantizer/spec.hpp"
#include "io/failure_message.hpp"

namespace {

using namespace detent;

TEST(spec, a_grid_alone_has_defaults) {
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

TEST(spec, reads_all_parts_in_any_order) {
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

TEST(spec, granularities) {
    EXPECT_EQ(spec::parse("int4:channel").granularity, (per_tile{1, 0}));
    EXPECT_EQ(spec::parse("int4:tensor").granularity, (per_tile{0, 0}));
    EXPECT_EQ(spec::parse("int4:g1").granularity, (per_tile{1, 1}));
    EXPECT_EQ(spec::parse("int4:b32x16").granularity, (per_tile{32, 16}));
}

TEST(spec, other_words) {
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

TEST(spec, scales_of_8_bits) {
    EXPECT_EQ(spec::parse("int4:scale=e8m0").format, scale_kind::e8m0);
    EXPECT_EQ(spec::parse("scale=e4m3:e4m3").format, scale_kind::ue4m3);
    EXPECT_EQ(spec::parse("scale=e4m3:e4m3").grid.name, "e4m3");
    struct {
        char const* text;
        char const* grid;
        index_t width;
        scale_kind kind;
    } const cases[] = {
        {"mxfp4", "e2m1", 32, scale_kind::e8m0},         {"mxfp6-e2m3", "e2m3", 32, scale_kind::e8m0},
        {"mxfp6-e3m2", "e3m2", 32, scale_kind::e8m0},    {"mxfp8", "ocp-e4m3", 32, scale_kind::e8m0},
        {"mxfp8-e5m2", "ocp-e5m2", 32, scale_kind::e8m0}, {"gptq:act:nvfp4:mse", "e2m1", 16, scale_kind::ue4m3},
    };
    for (auto const& c : cases) {
        spec const s = spec::parse(c.text);
        EXPECT_EQ(s.grid.name, c.grid) << c.text;
        EXPECT_EQ(s.granularity, (per_tile{1, c.width})) << c.text;
        EXPECT_EQ(s.format, c.kind) << c.text;
    }
}

TEST(spec, weak_columns_have_defaults) {
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

TEST(spec, weak_columns_have_options_in_any_order) {
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

TEST(spec, weak_columns_go_with_any_solver) {
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

TEST(spec, inputs) {
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
        {"fp4:a=fp4:search", "e2m1", false, true, true, true}, // one range is what a search is for
        {"search:fp4:a=fp6", "e3m2", false, true, true, true},
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
    EXPECT_TRUE(spec::parse("int4:gptaq").needs_float_stream());
    EXPECT_FALSE(spec::parse("int4:gptaq:a=int8@tensor").needs_float_stream());
}

TEST(spec, searches) {
    using spacing = range_candidates::spacing;
    spec const search = spec::parse("fp4:a=fp4:search");
    EXPECT_TRUE(search.search);
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
    EXPECT_EQ(spec::parse("fp4:a=fp4:search:metric=cosine").metric, output_metric::cosine);
    EXPECT_EQ(spec::parse("fp4:a=fp4:fpq:metric=squares").metric, output_metric::squares);
    EXPECT_EQ(spec::parse("int4:e=int8sym").embeddings, (grid_name{"int8", true, false}));
    EXPECT_FALSE(spec::parse("int4:e=int8").reads_floats());
}

TEST(spec, blocks_can_be_learned) {
    EXPECT_FALSE(spec::parse("int4:gptq").learning);
    spec const s = spec::parse("int4:g64:a=int4:let:lwc:aug:epochs=40:alpha=0.75:gptq");
    EXPECT_EQ(s.learning, (learning{.clip = true, .transform = true, .auxiliary = true, .epochs = 40, .alpha = 0.75}));
    EXPECT_EQ(s.solver, spec::solver_kind::gptq);
    EXPECT_EQ(spec::parse("int3:lwc").learning, (learning{.clip = true}));
    EXPECT_FALSE(spec::parse("int3:let").learning.clip);
    EXPECT_EQ(spec::parse("int4:let=down:lwc").learning, (learning{.clip = true, .transform = true, .hidden = true}));
    EXPECT_EQ(spec::parse("int4:let:p=8").learning, (learning{.transform = true, .probability_bits = 8}));
    EXPECT_EQ(spec::parse("int4:omniquant").learning, (learning{.published = true}));
    EXPECT_EQ(spec::parse("int4:omniquant:epochs=5:gptq").learning, (learning{.published = true, .epochs = 5}));
}

TEST(spec, what_it_does_not_understand_is_named) {
    struct {
        char const* text;
        char const* problem;
    } const cases[] = {
        {"", "empty part ''"},
        {":", "empty part ''"},
        {"int4:", "empty part ''"},
        {"int4::g128", "empty part ''"},
        {"int4:e2m1", "unknown part 'e2m1'"},
        {"int4:fast", "unknown part 'fast'"},
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
        {"int4:act", "act, static and stale need gptq or its kin"},
        {"int4:obq:static", "act, static and stale need gptq or its kin"},
        {"int4:damp=0.1:rtn", "damp needs a solver other than rtn"},
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
        {"mxfp4:nvfp4", "unknown part 'nvfp4'"},
        {"int4:mxfp4", "unknown part 'mxfp4'"},
        {"mxfp4:int4", "unknown part 'int4'"},
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
        {"int3:in=q", "in, by, uncompensated and published need owq"},
        {"int3:gptq:by=activation", "in, by, uncompensated and published need owq"},
        {"int3:uncompensated", "in, by, uncompensated and published need owq"},
        {"int3:published", "in, by, uncompensated and published need owq"},
        {"int3:owq=2:published", "published needs owq@ and a number of bits"},
        {"int3:owq=2:rtn:damp=0.1", "damp needs a solver other than rtn"},
        {"int3:owq=2:rtn:act", "act, static and stale need gptq or its kin"},
        {"int3:owq=2:zeros", "zeros needs obq"},
        {"int3:owq=2:strength=0.5", "strength needs gptaq or qronos"},
        {"owq=2", "names no grid"},
        {"int4:a=", "not a grid, @token or @tensor: 'a='"},
        {"int4:a=@tensor", "not a grid, @token or @tensor: 'a=@tensor'"},
        {"int4:a=int8@", "not a grid, @token or @tensor: 'a=int8@'"},
        {"int4:a=int8@row", "not a grid, @token or @tensor: 'a=int8@row'"},
        {"int4:a=int8@token@tensor", "not a grid, @token or @tensor: 'a=int8@token@tensor'"},
        {"int4:a=int8:a=int8", "names a second grid of inputs, 'a=int8'"},
        {"a=int8", "names no grid"},
        {"int4:e=", "names no grid: 'e='"},
        {"int4:e=fp4:e=fp8", "names a second grid of embeddings, 'e=fp8'"},
        {"e=fp4", "names no grid"},
        {"fp4:search:search", "names a second search, 'search'"},
        {"fp4:search:fpq", "names a second search, 'fpq'"},
        {"fp4:a=fp4:fpq:search", "names a second search, 'search'"},
        {"fp4:fpq", "fpq needs inputs with one range, such as a=fp4"},
        {"fp4:a=fp4@token:fpq", "fpq needs inputs with one range, such as a=fp4"},
        {"fp4:a=fp4:search:fold", "fold needs fpq"},
        {"int4:aug", "aug, p, epochs and alpha need lwc, let or omniquant"},
        {"int4:epochs=3", "aug, p, epochs and alpha need lwc, let or omniquant"},
        {"int4:omniquant:lwc", "omniquant chooses lwc, let, aug and alpha itself, which must not be given"},
        {"int4:omniquant:alpha=0.7", "omniquant chooses lwc, let, aug and alpha itself, which must not be given"},
        {"int4:let=up", "'let=up'"},
        {"int4:p=8", "aug, p, epochs and alpha need lwc, let or omniquant"},
        {"int4:let:p=1", "not 2 to 8 bits: 'p=1'"},
        {"int4:let:alpha=1.5", "not between 0 and 1: 'alpha=1.5'"},
        {"int4:lwc:epochs=0", "not a number of epochs: 'epochs=0'"},
        {"int4:lwc:tensor", "lwc and let need scales of rows or groups, and inputs whose tokens have their own"},
        {"fp4:let:search", "lwc and let need scales of rows or groups, and inputs whose tokens have their own"},
        {"int4:let:a=int4@tensor",
         "lwc and let need scales of rows or groups, and inputs whose tokens have their own"},
        {"int4:lwc:mse", "lwc and let choose ranges themselves"},
        {"mxfp4:lwc", "lwc and let need scales of 16 bits or more"},
        {"fp4:paper", "paper needs search or fpq"},
        {"fp4:a=fp4@tensor:paper", "paper needs search or fpq"},
        {"fp4:a=fp4:metric=cosine", "metric needs search or fpq, and inputs with one range"},
        {"fp4:search:metric=cosine", "metric needs search or fpq, and inputs with one range"},
        {"fp4:a=fp4@token:search:metric=cosine", "metric needs search or fpq, and inputs with one range"},
        {"fp4:a=fp4:search:metric=huber", "not a metric: 'metric=huber'"},
        {"fp4:a=fp4:search:metric=cosine:metric=cosine", "names a second metric, 'metric=cosine'"},
    };
    for (auto const& c : cases) {
        std::string const message = failure_message([&] { spec::parse(c.text); });
        EXPECT_TRUE(message.starts_with("specification '" + std::string(c.text) + "': ")) << message;
        EXPECT_TRUE(contains(message, c.problem)) << message;
    }
}

} // namespace

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <gtest/gtest.h>

#include "detent/quantizer/spec.hpp"
#include "io/failure_message.hpp"

namespace {

using namespace detent;

TEST(spec, a_grid_alone_has_defaults) {
    spec const s = spec::parse("int4");
    EXPECT_EQ(s.text, "int4");
    EXPECT_EQ(s.grid, "int4");
    EXPECT_FALSE(s.symmetric);
    EXPECT_EQ(s.granularity, (per_tile{1, 0}));
    EXPECT_EQ(s.range, spec::range_kind::automatic);
    EXPECT_EQ(s.solver, spec::solver_kind::rtn);
    EXPECT_EQ(s.format, float_format::f16);
    EXPECT_EQ(s.gptq_options, gptq<>{});
}

TEST(spec, reads_all_parts_in_any_order) {
    for (auto const* const text : {"int3:sym:g64:gptq:act:static:stale:damp=0.05:mse:bf16",
                                   "bf16:mse:damp=0.05:stale:static:act:gptq:g64:sym:int3"}) {
        spec const s = spec::parse(text);
        EXPECT_EQ(s.text, text);
        EXPECT_EQ(s.grid, "int3");
        EXPECT_TRUE(s.symmetric);
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
    EXPECT_EQ(spec::parse("fp4").grid, "e2m1");
    EXPECT_EQ(spec::parse("ocp-e4m3").grid, "ocp-e4m3");
    EXPECT_EQ(spec::parse("nf4:absmax").range, spec::range_kind::absmax);
    EXPECT_EQ(spec::parse("int4:minmax").range, spec::range_kind::minmax);
    EXPECT_EQ(spec::parse("int4:rtn").solver, spec::solver_kind::rtn);
    EXPECT_EQ(spec::parse("int4:f32").format, float_format::f32);
    EXPECT_EQ(spec::parse("int4:f16").format, float_format::f16);
    EXPECT_EQ(spec::parse("int4:gptq:damp=0").gptq_options.damping, 0);
    EXPECT_EQ(spec::parse("int4:damp=1e-3:gptq").gptq_options.damping, 1e-3);
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
    };
    for (auto const& c : cases) {
        std::string const message = failure_message([&] { spec::parse(c.text); });
        EXPECT_TRUE(message.starts_with("specification '" + std::string(c.text) + "': ")) << message;
        EXPECT_TRUE(contains(message, c.problem)) << message;
    }
}

} // namespace

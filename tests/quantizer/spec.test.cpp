// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <gtest/gtest.h>

#include "detent/quantizer/spec.hpp"

namespace {

using namespace detent;

TEST(spec, says_what_layers_must_be_shown) {
    struct {
        bool search;
        char const* inputs;
        bool dynamic;
        output_metric metric;
        bool floats;
        bool all_inputs;
    } const cases[] = {
        {false, "", true, output_metric::squares, false, false},
        {false, "", false, output_metric::squares, false, false},
        {false, "int8", true, output_metric::squares, false, false},
        {false, "int8", false, output_metric::squares, true, true},
        {true, "", true, output_metric::squares, true, false},
        {true, "int8", true, output_metric::squares, true, false},
        {true, "int8", false, output_metric::squares, true, true},
        {true, "", true, output_metric::cosine, true, true},
        {true, "int8", true, output_metric::absolute, true, true},
    };
    for (auto const& c : cases) {
        spec s;
        s.search = c.search;
        s.input.grid.name = c.inputs;
        s.input.dynamic = c.dynamic;
        s.metric = c.metric;
        std::ptrdiff_t const i = &c - cases;
        EXPECT_EQ(s.reads_floats(), c.floats) << i;
        EXPECT_EQ(s.keeps_inputs(), c.all_inputs) << i;
        EXPECT_FALSE(s.needs_float_stream()) << i;
        for (auto const solver : {spec::solver_kind::gptaq, spec::solver_kind::qronos}) {
            s.solver = solver;
            EXPECT_EQ(s.needs_float_stream(), !c.floats) << i;
        }
    }
}

} // namespace

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// Weights and inputs as large and as small as floats can be.

#include <cmath>
#include <limits>
#include <string>

#include <gtest/gtest.h>

#include "detent/matrix/dequantize.hpp"
#include "detent/quantizer/catalogue.hpp"
#include "detent/quantizer/parse_spec.hpp"
#include "io/failure_message.hpp"
#include "nn/random_matrix.hpp"

namespace {

using namespace detent;
using test::random_matrix;

/// Either an error with a message, or numbers that are finite.
void expect_finite_or_error(std::string const& text, matrix const& w, matrix const& x) {
    SCOPED_TRACE(text);
    layer_inputs both(x.cols());
    both.add(x, x);
    try {
        auto const s = spec::parse(text);
        layer_inputs const known = s.needs_float_stream() ? both : layer_inputs::of(x);
        quantization const q = quantize(w, known, s);
        matrix const numbers = dequantize(q.weights);
        EXPECT_TRUE(numbers.allFinite());
        for (float const scale : q.weights.scales.scales) {
            EXPECT_TRUE(std::isfinite(scale) && scale > 0);
        }
    } catch (error const& e) {
        EXPECT_FALSE(std::string(e.what()).empty());
    }
}

TEST(catalogue, weights_and_inputs_of_any_size_are_quantized_or_refused) {
    matrix const w = random_matrix(8, 24, 1);
    matrix const x = random_matrix(60, 24, 2);
    for (auto const* const text : {"int4:rtn",
                                   "int4:f32",
                                   "int4:f32:mse",
                                   "fp4:search",
                                   "fp4:search:f32",
                                   "fp4:a=fp4:fpq:gptq",
                                   "fp4:fpq:a=fp4:f32",
                                   "fp4:search:metric=cosine",
                                   "fp4:search:metric=doubly_weighted",
                                   "int4:lwc:g8",
                                   "int4:lwc:gptq:f32",
                                   "int4:owq=2:gptq",
                                   "int4:owq=2:gptq:bf16",
                                   "int3:owq=2:search",
                                   "int3:qronos",
                                   "e2m1:bf16:mse",
                                   "nf4:f32",
                                   "int4:truncated:f32",
                                   "ternary:f32",
                                   "int1:f32",
                                   "mxfp4:search",
                                   "nvfp4:search:gptq"}) {
        for (float const size : {1.0F, 1e-30F, 1e10F, 1e19F, 1e30F, 3.4e38F}) {
            expect_finite_or_error(text, size * w, x);
            expect_finite_or_error(text, w, size * x);
            matrix one = w;
            one(3, 5) = size;
            expect_finite_or_error(text, one, x);
        }
    }
}

TEST(catalogue, embeddings_that_cannot_be_rounded_are_an_error) {
    matrix table = random_matrix(10, 16, 1);
    table(3, 5) = std::numeric_limits<float>::max();
    std::string const message = failure_message([&] { quantize_embeddings(table, spec::parse("int4:e=int8:f16")); });
    EXPECT_TRUE(contains(message, "embeddings")) << message;
}

} // namespace

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <gtest/gtest.h>

#include "detent/model/dequantize_decoder.hpp"
#include "detent/quantizer/catalogue.hpp"
#include "detent/quantizer/find_kv_format.hpp"
#include "detent/quantizer/parse_spec.hpp"
#include "random_decoder.hpp"

namespace detent {

TEST(dequantize_decoder, computes_the_same_with_floats) {
    for (auto const& json : {test::llama_json(), test::opt_json()}) {
        decoder model = test::random_decoder(json);
        auto const tokens = test::some_tokens(12);
        EXPECT_EQ(dequantize_decoder(model), 0);
        index_t layers = 0;
        for (block& b : model.blocks) {
            for (auto const& group : b.groups()) {
                for (layer_place const place : group) {
                    auto& w = b.linear(place).weight;
                    w = quantize(std::get<matrix>(w), spec::parse("int4:g4")).weights;
                    ++layers;
                }
            }
        }
        matrix const packed = model.forward(tokens);
        model.blocks.front().query.input = activation_quantizer(find_grid(grid_name::parse("int4")));
        model.blocks.front().heads.probability_bits = 4;
        EXPECT_EQ(dequantize_decoder(model), layers);
        EXPECT_LE((model.forward(tokens) - packed).norm(), 1e-5F * packed.norm());
    }
}

} // namespace detent

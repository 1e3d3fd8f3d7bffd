// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <gtest/gtest.h>

#include "detent/matrix/packed_matrix.hpp"
#include "detent/model/block_flow.hpp"
#include "detent/model/dense_block.hpp"
#include "io/failure_message.hpp"
#include "model/random_decoder.hpp"
#include "nn/random_matrix.hpp"

namespace detent {
namespace {

TEST(dense_block, computes_what_the_block_does) {
    for (auto const& form : test::decoder_forms()) {
        block const b = test::random_decoder(form.configuration).blocks.front();
        matrix const x = test::random_matrix(2 * 9, 12, 1);
        block_tape<float> tape;
        EXPECT_EQ(forward(dense<float>(b), x, {.sequences = 2}, tape), forward(b, x, {.sequences = 2})) << form.name;
    }
}

TEST(dense_block, is_stored_in_a_block) {
    for (auto const& form : test::decoder_forms()) {
        decoder const model = test::random_decoder(form.configuration);
        matrix const x = test::random_matrix(2 * 9, 12, 1);
        dense_block<float> changed = dense<float>(model.blocks[0]);
        for (layer_place const place : changed.places()) {
            changed.linear(place).weight *= 1.01F;
        }
        for (auto* const norms : {&changed.attention_norms, &changed.mlp_norms}) {
            if (norms->input) {
                norms->input->weight *= 1.01F;
            }
        }
        block b = model.blocks[0];
        store(changed, b);
        block_tape<float> tape;
        EXPECT_EQ(forward(b, x, {.sequences = 2}), forward(changed, x, {.sequences = 2}, tape)) << form.name;
        EXPECT_EQ(b.query.name, model.blocks[0].query.name);
    }
}

TEST(dense_block, has_no_quantized_layer) {
    block b = test::random_decoder(test::llama_json()).blocks[0];
    b.mlps[0].up.weight = packed_matrix();
    EXPECT_EQ(failure_message([&] { dense<float>(b); }), "layer 'layers.0.mlp.up_proj': is quantized already");
}

} // namespace
} // namespace detent

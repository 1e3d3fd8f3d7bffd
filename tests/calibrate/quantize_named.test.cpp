// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <string>
#include <variant>
#include <vector>

#include <gtest/gtest.h>

#include "detent/calibrate/quantize_named.hpp"
#include "detent/matrix/dequantize.hpp"
#include "detent/model/fold.hpp"
#include "detent/model/model_tensors.hpp"
#include "detent/model/sites.hpp"
#include "detent/quantizer/parse_spec.hpp"
#include "io/failure_message.hpp"
#include "model/random_decoder.hpp"

namespace detent {
namespace {

/// A model with one network in its first block and experts in its second.
decoder mixed_decoder() {
    for (auto form : test::decoder_forms()) {
        if (form.name == "experts_sigmoid_and_shared") {
            form.configuration.layers.front().experts = false;
            return test::random_decoder(form.configuration);
        }
    }
    ADD_FAILURE();
    return {};
}

std::vector<layer_report> quantized(decoder& model, std::string const& text) {
    auto const tokens = test::some_tokens(60);
    return quantize_decoder(model, spec::parse(text), {.tokens = tokens, .window = 10, .windows = 6});
}

packed_matrix const& packed(block const& b, layer_place place) {
    return std::get<packed_matrix>(b.linear(place).weight);
}

TEST(quantize_named, looks_at_each_block) {
    decoder model = mixed_decoder();
    ASSERT_EQ(model.blocks[0].mlps.size(), 1U);
    ASSERT_EQ(model.blocks[1].mlps.size(), 4U);
    auto const reports = quantized(model, "int4:owq=1:in=q+down:or-rtn");
    ASSERT_EQ(reports.size(), 7U + 4 + 4 * 3);
    for (auto const& r : reports) {
        bool const weak = r.place.role == linear_role::query || r.place.role == linear_role::down;
        EXPECT_EQ(r.weak_columns, weak ? 1 : 0) << r.name;
    }
}

TEST(quantize_named, refuses_what_a_block_does_not_have) {
    decoder model = test::random_decoder(test::opt_json());
    std::string const message = failure_message([&] { quantized(model, "int4:owq=1:in=gate"); });
    EXPECT_TRUE(contains(message, "'gate'")) << message;
    EXPECT_TRUE(std::holds_alternative<matrix>(model.blocks[0].query.weight)); // before any work
    EXPECT_EQ(failure_message([&] { check(spec::parse("int4:owq=1:in=q"), model); }), "");
    decoder mixed = mixed_decoder();
    EXPECT_EQ(failure_message([&] { check(spec::parse("int4:owq=1:in=gate+down"), mixed); }), "");
    // The shared expert has 9 features inside, all others more.
    EXPECT_TRUE(contains(failure_message([&] { check(spec::parse("int4:owq=9"), mixed); }), "'down'"));
}

// Where scales could be folded a layer needs no map, and else it has one of its own.
TEST(quantize_named, keeps_maps_where_scales_cannot_be_folded) {
    for (auto const& form : test::decoder_forms()) {
        decoder const original = test::random_decoder(form.configuration);
        decoder model = original;
        quantized(model, "int8:smooth:fold:rtn");
        for (std::size_t i = 0; i < model.blocks.size(); ++i) {
            block const& before = original.blocks[i];
            for (layer_place const place : before.places()) {
                if (is_quantized(place.role)) {
                    bool const foldable = can_fold(before, site_read_by(before, place.role), place.expert);
                    EXPECT_EQ(packed(model.blocks[i], place).map.empty(), foldable) << form.name;
                }
            }
        }
    }
}

TEST(quantize_named, names_the_layer_whose_errors_are_not_finite) {
    for (auto const* const text : {"fp4:search", "fp4:a=fp4:fpq:gptq", "int4:lwc", "int4:owq=1:lwc"}) {
        SCOPED_TRACE(text);
        decoder model = test::random_decoder(test::opt_json());
        auto& w = std::get<matrix>(model.blocks[1].mlps[0].up.weight);
        w(0, 0) = 3e38F; // an exponent bit of one weight
        std::string const message = failure_message([&] { quantized(model, text); });
        bool const named = message.starts_with("layer '") || message.starts_with("block 1: learning");
        EXPECT_TRUE(message.empty() || named) << message;
        if (message.empty()) {
            for (auto const& [name, p] : packed_layers(model)) {
                EXPECT_TRUE(dequantize(*p).allFinite()) << name;
            }
        }
    }
}

} // namespace
} // namespace detent

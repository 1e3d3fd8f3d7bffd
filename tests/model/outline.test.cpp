// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <filesystem>
#include <string>

#include <gtest/gtest.h>

#include "detent/io/clients.hpp"
#include "detent/io/layout.hpp"
#include "detent/model/load.hpp"
#include "detent/model/outline.hpp"
#include "detent/model/save.hpp"
#include "detent/quantizer/catalogue.hpp"
#include "detent/quantizer/parse_spec.hpp"
#include "io/failure_message.hpp"
#include "random_decoder.hpp"

namespace detent {

TEST(outline, is_the_quantized_matrix_without_its_numbers) {
    matrix const w = matrix::Random(32, 128);  // (out, in)
    matrix const x = matrix::Random(256, 128); // (token, in)
    matrix const x2 = x + matrix::Random(256, 128) * 0.01F;
    layer_inputs known(128);
    known.add(x, x2);
    for (std::string const text : {"int4:rtn",
                                   "int4:g32:gptq",
                                   "int4:g32:gptq:act",
                                   "int4:g32:gptq:act:static",
                                   "int4:gptq:act",
                                   "int3:sym:g64",
                                   "e2m1:g16:scale=e4m3",
                                   "e2m1:g32:scale=e8m0:gptq",
                                   "nvfp4",
                                   "mxfp4",
                                   "nf4:g64",
                                   "int2:g48:obq",
                                   "int3:owq=2:g32",
                                   "int3:owq=4:bf16",
                                   "int4:tensor",
                                   "int4:smooth=0.5:gptq",
                                   "int4:hadamard=32:gptq",
                                   "int4:g32:clip:gptq:act",
                                   "int3:g32:qronos:act",
                                   "ternary:g8"}) {
        spec s;
        try {
            s = spec::parse(text);
        } catch (error const& e) {
            ADD_FAILURE() << e.what();
            continue;
        }
        packed_matrix const made = quantize(w, known, s).weights;
        packed_matrix const planned = outline(s, {32, 128});
        EXPECT_EQ(planned.bits, made.bits) << text;
        EXPECT_EQ(planned.shape(), made.shape()) << text;
        EXPECT_EQ(planned.tile, made.tile) << text;
        EXPECT_TRUE(same_bits(planned.table, made.table)) << text;
        EXPECT_EQ(planned.scales.tiles, made.scales.tiles) << text;
        EXPECT_EQ(planned.scales.format.kind, made.scales.format.kind) << text;
        EXPECT_EQ(planned.scales.zeros.empty(), made.scales.zeros.empty()) << text;
        EXPECT_EQ(planned.weak.count(), made.weak.count()) << text;
        EXPECT_EQ(planned.bits_per_weight(), made.bits_per_weight()) << text;
        EXPECT_EQ(planned.effective_bits(), made.effective_bits()) << text;
        ASSERT_EQ(planned.map.steps().size(), made.map.steps().size()) << text;
        for (std::size_t i = 0; i < made.map.steps().size(); ++i) {
            EXPECT_EQ(planned.map.steps()[i].index(), made.map.steps()[i].index()) << text;
        }
    }
}

TEST(outline_decoder, has_the_layers_of_the_model) {
    for (auto const& json : {test::llama_json(), test::opt_json()}) {
        auto const c = parse_configuration(json, "config.json");
        auto const real = test::random_decoder(json);
        auto const planned = outline_decoder(c, spec::parse("int4:g4:rtn"));
        auto const a = tensors_of(real), b = tensors_of(planned);
        ASSERT_EQ(a.layers.size(), b.layers.size());
        for (std::size_t i = 0; i < a.layers.size(); ++i) {
            EXPECT_TRUE(b.layers[i].of->name.ends_with(a.layers[i].of->name)); // whose names have no prefix
            EXPECT_EQ(a.layers[i].of->shape(), b.layers[i].of->shape());
            EXPECT_EQ(a.layers[i].of->bias.size(), b.layers[i].of->bias.size());
            EXPECT_EQ(b.layers[i].in_block, std::holds_alternative<packed_matrix>(b.layers[i].of->weight));
        }
        EXPECT_EQ(a.floats.size(), b.floats.size());
    }
}

TEST(outline_decoder, tells_what_layouts_cannot_hold) {
    auto json = test::llama_json();
    json["hidden_size"] = json["intermediate_size"] = 64;
    json["head_dim"] = 16;
    json["attention_bias"] = json["mlp_bias"] = false;
    auto const c = parse_configuration(json, "config.json");
    auto const obstacle = [&](std::string const& text, io::packed_layout layout) {
        auto const found = layout_obstacle(tensors_of(outline_decoder(c, spec::parse(text))), layout);
        return found ? std::string(found->what()) : std::string();
    };
    constexpr auto gptq = io::packed_layout::gptq, owq = io::packed_layout::owq;
    EXPECT_EQ(obstacle("int4:g32:gptq:act", gptq), "");
    EXPECT_EQ(obstacle("int3:owq=2", owq), "");
    EXPECT_TRUE(contains(obstacle("int5:g32", gptq), "not 5"));
    EXPECT_TRUE(contains(obstacle("int3:owq=2", gptq), "no weak columns"));
    EXPECT_TRUE(contains(obstacle("e2m1:g32", gptq), "its grids are integers"));
    EXPECT_TRUE(contains(obstacle("int4:a=int8", gptq), "its inputs are not quantized"));
    EXPECT_TRUE(contains(obstacle("int4:let", gptq), "it has no bias there"));
    EXPECT_TRUE(contains(failure_message([&] { outline_decoder(c, spec::parse("int3:owq=64")); }), "64 weak columns"));
}

TEST(outline, tells_what_a_layout_cannot_hold_of_a_matrix) {
    auto const obstacle = [](std::string const& text, io::packed_layout layout) {
        return io::layout_of(layout).obstacle(outline(spec::parse(text), {768, 256}));
    };
    using io::packed_layout;
    for (std::string const text : {"int4:g128:gptq", "int4sym:g64", "int8", "int3:g32:gptq:act", "int2sym:g32"}) {
        EXPECT_EQ(obstacle(text, packed_layout::gptq), "") << text;
        EXPECT_EQ(obstacle(text, packed_layout::compressed_tensors), "") << text;
    }
    EXPECT_EQ(obstacle("int5", packed_layout::gptq), "it stores 2, 3, 4 or 8 bits, not 5");
    EXPECT_EQ(obstacle("int4:g128", packed_layout::awq), "");
    EXPECT_EQ(obstacle("int3:g128", packed_layout::awq), "it stores 4 bits, not 3");
    EXPECT_EQ(obstacle("int4:g64:gptq:act", packed_layout::awq), "its inputs are as they come");
    for (std::string const text : {"nvfp4", "mxfp4", "ocp-e4m3", "mxfp4:a=mxfp4", "int8sym:a=int8sym"}) {
        EXPECT_EQ(obstacle(text, packed_layout::compressed_tensors), "") << text;
    }
    EXPECT_EQ(obstacle("nf4:g64", packed_layout::compressed_tensors),
              "its grids are integers, E4M3 (ocp-e4m3) and E2M1");
    EXPECT_EQ(obstacle("int4:g24", packed_layout::compressed_tensors), "its groups are all of the same width");
    EXPECT_EQ(io::layout_of(packed_layout::modelopt).add, nullptr); // it is read, not written
}

TEST(outline, tells_which_programs_do_not_open_it) {
    auto const obstacle = [](io::client who, std::string const& text, io::packed_layout layout) {
        return io::client_obstacle(who, io::form_of(layout, outline(spec::parse(text), {768, 256}), nullptr));
    };
    using io::client, io::packed_layout;
    EXPECT_EQ(obstacle(client::vllm, "int4sym:g128:gptq", packed_layout::gptq), "");
    EXPECT_EQ(obstacle(client::vllm, "int4:g128:gptq", packed_layout::gptq),
              "vllm does not read it with zero points (use int4sym)");
    EXPECT_EQ(obstacle(client::vllm, "int4:g128:gptq", packed_layout::compressed_tensors), "");
    EXPECT_EQ(obstacle(client::mlx, "int4:g128", packed_layout::awq), "");
    EXPECT_EQ(obstacle(client::mlx, "int4:g128", packed_layout::gptq), "mlx does not read GPTQ's layout");
}

} // namespace detent

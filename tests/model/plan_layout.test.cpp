// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "detent/model/plan_layout.hpp"
#include "detent/quantizer/parse_spec.hpp"

namespace detent {
namespace {

using io::packed_layout;

std::vector<planned_layer> const layers{{"a", {768, 256}}, {"b", {256, 768}}};

std::string obstacle(std::string const& text, packed_layout layout) {
    auto const found = layout_obstacle(spec::parse(text), layout, layers);
    return found ? found->what() : "";
}

TEST(layout_obstacle_of_a_specification, is_known_before_any_work) {
    for (std::string const text : {"int4:g128:gptq", "int4sym:g64", "int8", "int3:g32:gptq:act", "int2sym:g32"}) {
        EXPECT_EQ(obstacle(text, packed_layout::gptq), "") << text;
        EXPECT_EQ(obstacle(text, packed_layout::compressed_tensors), "") << text;
        EXPECT_EQ(obstacle(text, packed_layout::detent), "") << text;
    }
    std::string const gptq = "layer 'a': GPTQ's layout cannot hold it, ";
    EXPECT_EQ(obstacle("int5", packed_layout::gptq), gptq + "it stores 2, 3, 4 or 8 bits, not 5");
    EXPECT_EQ(obstacle("nvfp4", packed_layout::gptq), gptq + "its grids are integers");
    EXPECT_EQ(obstacle("int4:a=int8", packed_layout::gptq), gptq + "its inputs are not quantized");
    std::string const awq = "layer 'a': AWQ's layout cannot hold it, ";
    EXPECT_EQ(obstacle("int4:g128", packed_layout::awq), "");
    EXPECT_EQ(obstacle("int3:g128", packed_layout::awq), awq + "it stores 4 bits, not 3");
    EXPECT_EQ(obstacle("int4:g64:gptq:act", packed_layout::awq), awq + "its inputs are as they come");
    std::string const compressed = "layer 'a': compressed-tensors' layout cannot hold it, ";
    for (std::string const text : {"nvfp4", "mxfp4", "ocp-e4m3", "mxfp4:a=mxfp4", "int8sym:a=int8sym"}) {
        EXPECT_EQ(obstacle(text, packed_layout::compressed_tensors), "") << text;
    }
    EXPECT_EQ(obstacle("nf4:g64", packed_layout::compressed_tensors),
              compressed + "its grids are integers, E4M3 (ocp-e4m3) and E2M1");
    EXPECT_EQ(obstacle("int4:g24", packed_layout::compressed_tensors),
              compressed + "its groups are all of the same width");
    EXPECT_EQ(obstacle("int4", packed_layout::modelopt), "ModelOpt's layout: is read, not written");
    planned_layer const part{"qkv.query", {64, 64}, "qkv"};
    EXPECT_EQ(
        std::string(layout_obstacle(spec::parse("int4"), packed_layout::gptq, {&part, 1})->what()),
        "layer 'qkv.query': GPTQ's layout cannot hold it, it is a part of 'qkv', which readers look for as a whole");
}

TEST(client_obstacle_of_a_specification, is_known_before_any_work) {
    auto const obstacle_of = [](io::client who, std::string const& text, packed_layout layout) {
        return client_obstacle(who, spec::parse(text), layout, layers);
    };
    EXPECT_EQ(obstacle_of(io::client::vllm, "int4sym:g128:gptq", packed_layout::gptq), "");
    EXPECT_EQ(obstacle_of(io::client::vllm, "int4:g128:gptq", packed_layout::gptq),
              "vllm does not read it with zero points (use int4sym)");
    EXPECT_EQ(obstacle_of(io::client::vllm, "int4:g128:gptq", packed_layout::compressed_tensors), "");
    EXPECT_EQ(obstacle_of(io::client::mlx, "int4:g128", packed_layout::awq), "");
    EXPECT_EQ(obstacle_of(io::client::mlx, "int4:g128", packed_layout::gptq), "mlx does not read GPTQ's layout");
}

} // namespace
} // namespace detent

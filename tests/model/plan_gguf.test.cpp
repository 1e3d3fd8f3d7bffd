// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <filesystem>
#include <string>

#include <gtest/gtest.h>

#include "detent/model/configuration.hpp"
#include "detent/model/plan_gguf.hpp"
#include "detent/quantizer/parse_spec.hpp"
#include "io/failure_message.hpp"
#include "model/family_fixtures.hpp"

namespace detent {
namespace {

/// What stands in the way of tiny-llama, quantized like this.
std::string obstacle_of(std::string const& specification, std::string const& family = "") {
    auto const directory = family.empty() ? std::filesystem::path(DETENT_EXAMPLES_DIR) / "models" / "tiny-llama"
                                          : test::families_directory() / family;
    return gguf_obstacle(read_configuration(directory / "config.json"), spec::parse(specification));
}

TEST(plan_gguf, groups_of_32_and_more_have_types) {
    for (auto const* fits :
         {"int4sym:g32:gptq", "int4:g32", "int4sym:g128", "int8sym:g64:gptq", "int5sym:g32", "int5:g32", "mxfp4",
          "nvfp4", "int4sym:channel", "ternary:g256:gptq", "int4sym:g32:gptq:act:static", "q2_k", "q3_k:gptq",
          "q4_k:gptq:act", "q5_k", "q6_k:gptq"}) {
        EXPECT_EQ(obstacle_of(fits), "") << fits;
    }
}

TEST(plan_gguf, the_type_and_the_reason_are_told) {
    EXPECT_TRUE(contains(obstacle_of("int4sym:g16"),
                         "a layer of 256 inputs fits no type of llama.cpp: Q4_0: its scales "
                         "are each of 32 weights, not of 16"))
        << obstacle_of("int4sym:g16");
    EXPECT_TRUE(contains(obstacle_of("int7:g32"), "none has 7 bits")) << obstacle_of("int7:g32");
    EXPECT_TRUE(contains(obstacle_of("int3:g32"), "Q3_K: its grids are symmetric integers"))
        << obstacle_of("int3:g32");
    EXPECT_TRUE(contains(obstacle_of("int2:g64"), "Q2_0: it has no zero points")) << obstacle_of("int2:g64");
    EXPECT_TRUE(contains(obstacle_of("nf4:g32"), "its grid has other numbers")) << obstacle_of("nf4:g32");
    EXPECT_TRUE(contains(obstacle_of("int8:g32"), "Q8_0: it has no zero points")) << obstacle_of("int8:g32");
}

TEST(plan_gguf, what_products_of_llama_cpp_do_not_do_is_told) {
    EXPECT_TRUE(contains(obstacle_of("int4sym:g32:a=int8"), "rounds the inputs of layers in a way of its own"));
    EXPECT_TRUE(contains(obstacle_of("int4sym:g32:gptq:act"), "read inputs as they come"));
    EXPECT_TRUE(contains(obstacle_of("int4sym:b32x32"), "has rows in another order"));
    EXPECT_TRUE(contains(obstacle_of("nvfp4", "gpt2-f32"), "one tensor for several layers"));
    EXPECT_EQ(obstacle_of("int4sym:b32x32", "qwen3-bf16"), "");
}

TEST(plan_gguf, embeddings_are_judged_too) {
    EXPECT_EQ(obstacle_of("int4sym:g32:e=int8sym"), "");
    EXPECT_TRUE(contains(obstacle_of("int4sym:g32:e=int3"), "the table of embeddings fits no type of llama.cpp"))
        << obstacle_of("int4sym:g32:e=int3");
    EXPECT_TRUE(contains(obstacle_of("nvfp4:e=int8sym"), "not tried outside of blocks"));
}

TEST(plan_gguf, families_are_judged_first) {
    EXPECT_TRUE(contains(obstacle_of("int4sym:g32", "opt-350m-f32"), "no architecture for models of type 'opt'"));
}

} // namespace
} // namespace detent

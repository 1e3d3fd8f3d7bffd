// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <span>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "detent/io/clients.hpp"
#include "io/layout_support.hpp"

namespace detent::test {
namespace {

using io::client;
using io::stored_form;
using clients = std::vector<client>;

TEST(clients, have_names) {
    EXPECT_EQ(io::find_client("vllm"), client::vllm);
    EXPECT_EQ(io::find_client("llama.cpp"), client::llama_cpp);
    EXPECT_FALSE(io::find_client("word").has_value());
}

TEST(clients_of, says_who_opens_what) {
    auto const of = [](stored_form const& form) { return io::clients_of(std::span(&form, 1)); };
    auto const of_gptq = [&](int bits, index_t group, bool symmetric) {
        return of({.layout = packed_layout::gptq, .bits = bits, .group = group, .symmetric = symmetric});
    };
    EXPECT_EQ(of_gptq(4, 128, true), (clients{client::llama_cpp, client::vllm, client::transformers}));
    EXPECT_EQ(of_gptq(4, 128, false), (clients{client::llama_cpp, client::transformers}));
    EXPECT_EQ(of_gptq(3, 128, true), (clients{client::transformers}));
    EXPECT_EQ(of({.layout = packed_layout::awq, .group = 128, .symmetric = false}),
              (clients{client::vllm, client::transformers, client::mlx}));
    EXPECT_EQ(of({.layout = packed_layout::detent}), clients{});
    auto const packed = [&](int bits, index_t group, bool symmetric) {
        return of({packed_layout::compressed_tensors, "pack-quantized", bits, group, symmetric});
    };
    EXPECT_EQ(packed(4, 128, false), (clients{client::llama_cpp, client::vllm, client::transformers}));
    EXPECT_EQ(packed(4, 0, true), (clients{client::vllm, client::transformers}));
    EXPECT_EQ(packed(3, 128, true), (clients{client::llama_cpp, client::transformers}));
}

TEST(clients_of, are_those_that_open_all_layers) {
    stored_form const forms[] = {{.layout = packed_layout::gptq, .bits = 4, .group = 128},
                                 {.layout = packed_layout::gptq, .bits = 2, .group = 128}};
    EXPECT_EQ(io::clients_of(std::span(forms).first(1)),
              (clients{client::llama_cpp, client::vllm, client::transformers}));
    EXPECT_EQ(io::clients_of(forms), (clients{client::llama_cpp, client::transformers}));
    EXPECT_EQ(io::clients_of(std::span(forms).first(0)),
              (clients{client::llama_cpp, client::vllm, client::transformers, client::mlx})); // floats
}

TEST(clients_of, are_one_for_a_file) {
    EXPECT_EQ(io::clients_of(io::model_file::gguf), clients{client::llama_cpp});
    EXPECT_EQ(io::clients_of(io::model_file::onnx), clients{client::onnxruntime});
    EXPECT_EQ(io::client_obstacle(client::vllm, io::model_file::onnx), "vllm does not read ONNX");
    EXPECT_EQ(io::client_obstacle(client::onnxruntime, io::model_file::onnx), "");
}

TEST(client_obstacle, says_why_not) {
    stored_form form{.layout = packed_layout::gptq, .bits = 4, .group = 128, .symmetric = false};
    EXPECT_EQ(io::client_obstacle(client::vllm, form), "vllm does not read it with zero points (use int4sym)");
    form.group = 24;
    EXPECT_EQ(io::client_obstacle(client::vllm, form), "vllm does not read it with groups of 24");
    form.bits = 3;
    EXPECT_EQ(io::client_obstacle(client::llama_cpp, form), "llama.cpp does not read it with 3 bits");
    EXPECT_EQ(io::client_obstacle(client::onnxruntime, form), "onnxruntime does not read GPTQ's layout");
}

TEST(form_of, is_what_the_layer_uses) {
    auto const w = random_packed(int_grid<4>{}, {32, 64}, {1, 32}, true);
    EXPECT_EQ(
        io::form_of(packed_layout::gptq, w),
        (stored_form{.layout = packed_layout::gptq, .bits = 4, .group = 32, .symmetric = false, .reordered = true}));
    auto const rows = random_packed(int_grid<8, zero::none>{}, {32, 64}, {1, 64});
    io::stored_input const input{.grid = "int8sym"};
    EXPECT_EQ(io::form_of(packed_layout::compressed_tensors, rows, &input),
              (stored_form{packed_layout::compressed_tensors, "int-quantized", 8, 0, true, false, true}));
}

} // namespace
} // namespace detent::test

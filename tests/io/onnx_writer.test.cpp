// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "detent/io/onnx_writer.hpp"
#include "io/failure_message.hpp"
#include "io/onnx_reader.hpp"
#include "io/temporary_directory.hpp"

namespace detent::io {
namespace {

using namespace std::string_literals;

TEST(protobuf_message, has_the_bytes_of_the_encoding) {
    // From the guide of Protocol Buffers: field 1 as 150, field 2 as "testing", a message with the first as field 3.
    EXPECT_EQ(protobuf_message().add(1, std::int64_t{150}).bytes(), "\x08\x96\x01");
    EXPECT_EQ(protobuf_message().add(2, std::string_view("testing")).bytes(), "\x12\x07testing");
    EXPECT_EQ(protobuf_message().add(3, protobuf_message().add(1, std::int64_t{150})).bytes(), "\x1a\x03\x08\x96\x01");
    EXPECT_EQ(protobuf_message().add(2, 1.0F).bytes(), "\x15\0\0\x80\x3f"s);
    EXPECT_EQ(protobuf_message().add(20, std::int64_t{-1}).bytes(), "\xa0\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01");
}

/// y = x + numbers.
onnx_writer sum(std::vector<float> const& numbers) {
    onnx_writer file;
    file.input("x", onnx_type::f32, {"token", std::ssize(numbers)});
    auto const other = file.tensor("x", {std::ssize(numbers)}, numbers);
    file.output("y", file.node("Add", {"x", other}, "sum"), onnx_type::f32, {"token", std::ssize(numbers)});
    file.note("description", "a sum");
    return file;
}

TEST(onnx_writer, says_what_readers_ask_for) {
    temporary_directory const directory;
    sum({1, 2, 3}).save(directory / "model.onnx");
    onnx_stored_model const read(directory / "model.onnx");
    EXPECT_EQ(read.model.integer(1), 8);
    EXPECT_EQ(protobuf_fields(read.model.texts(8).at(0)).integer(2), 17);
    EXPECT_EQ(protobuf_fields(read.model.texts(8).at(1)).text(1), "com.microsoft");
    EXPECT_EQ(protobuf_fields(read.model.text(14)).text(2), "a sum");
    ASSERT_EQ(read.nodes.size(), 2U);
    EXPECT_EQ(read.nodes[0].type, "Add");
    EXPECT_EQ(read.nodes[0].outputs, std::vector{"sum/Add"s});
    EXPECT_EQ(read.nodes[0].inputs, (std::vector{"x"s, "x_1"s})); // a name that was taken
    EXPECT_EQ(read.nodes[1].outputs, std::vector{"y"s});
    auto const& tensor = read.tensors.at("x_1");
    EXPECT_EQ(tensor.type, 1);
    EXPECT_EQ(tensor.shape, std::vector<std::int64_t>{3});
    EXPECT_EQ(tensor.numbers<float>(), (std::vector<float>{1, 2, 3}));
    protobuf_fields const input(read.graph.text(11));
    EXPECT_EQ(input.text(1), "x");
    protobuf_fields const type(protobuf_fields(input.text(2)).text(1));
    EXPECT_EQ(type.integer(1), 1);
    EXPECT_EQ(protobuf_fields(protobuf_fields(type.text(2)).texts(1).at(0)).text(2), "token");
    EXPECT_EQ(protobuf_fields(protobuf_fields(type.text(2)).texts(1).at(1)).integer(1), 3);
}

TEST(onnx_writer, puts_tensors_of_large_files_beside_them) {
    temporary_directory const directory;
    auto file = sum({1, 2, 3});
    std::vector<float> const numbers(300, 4.5F);
    file.tensor("first", {300}, numbers);
    file.tensor("second", {300}, numbers);
    file.save(directory / "model.onnx", 2000);
    onnx_stored_model const read(directory / "model.onnx");
    EXPECT_EQ(read.tensors.at("x_1").numbers<float>().size(), 3U); // a small one stays
    auto const& second = read.tensors.at("second");
    EXPECT_TRUE(second.bytes.empty());
    EXPECT_EQ(second.place.at("location"), "model.onnx.data");
    EXPECT_EQ(second.place.at("offset"), "4096");
    EXPECT_EQ(second.place.at("length"), "1200");
    auto const data = io::read_text(directory / "model.onnx.data");
    ASSERT_EQ(data.size(), 8192U);
    EXPECT_EQ(onnx_stored_tensor{.bytes = data.substr(4096, 1200)}.numbers<float>(), numbers);
    file.save(directory / "model.onnx");
    EXPECT_FALSE(std::filesystem::exists(directory / "model.onnx.data"));
    EXPECT_EQ(onnx_stored_model(directory / "model.onnx").tensors.at("second").numbers<float>(), numbers);
}

TEST(onnx_writer, keeps_one_tensor_of_equal_numbers) {
    onnx_writer file;
    EXPECT_EQ(file.scalar(2.5F), file.scalar(2.5F));
    EXPECT_NE(file.scalar(2.5F), file.scalar(3.5F));
    EXPECT_EQ(file.list({0, -1}), file.list({0, -1}));
    EXPECT_NE(file.scalar(std::int64_t{1}), file.list({1}));
}

TEST(onnx_writer, refuses_tensors_that_are_not_what_they_say) {
    temporary_directory const directory;
    onnx_writer file;
    EXPECT_EQ(failure_message([&] {
                  file.tensor("t", {2, 2}, std::vector<float>{1, 2, 3});
              }),
              "tensor 't': has other numbers than its shape says");
    EXPECT_EQ(failure_message([&] { file.tensor("u", onnx_type::u8, {-1}, {}); }), "tensor 'u': has a negative extent");
    onnx_writer short_one;
    short_one.tensor("v", onnx_type::u8, {4}, [](onnx_writer::sink const& to) { to(std::vector<std::uint8_t>{1, 2}); });
    EXPECT_EQ(failure_message([&] { short_one.save(directory / "model.onnx"); }),
              "tensor 'v': has other bytes than its shape says");
    EXPECT_EQ(directory.entries(), 0);
}

} // namespace
} // namespace detent::io

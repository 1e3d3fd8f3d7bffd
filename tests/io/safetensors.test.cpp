// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <map>
#include <optional>
#include <random>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "detent/io/json.hpp"
#include "detent/io/safetensors.hpp"
#include "detent/io/text_file.hpp"
#include "failure_message.hpp"
#include "temporary_directory.hpp"

namespace {

using namespace detent;
using io::checkpoint;
using io::dtype;
using io::read_text;
using io::safetensors_file;
using io::safetensors_writer;
using io::tensor_view;
using io::write_text;
using bytes = std::vector<std::uint8_t>;
using shape = std::vector<detent::index_t>;

bytes random_bytes(std::size_t size, unsigned seed) {
    std::mt19937 random(seed);
    bytes result(size);
    std::ranges::generate(result, [&] { return static_cast<std::uint8_t>(random()); });
    return result;
}

bytes copy(std::span<std::uint8_t const> data) { return {data.begin(), data.end()}; }

template <typename T> bytes bytes_of(std::vector<T> const& values) {
    bytes result(values.size() * sizeof(T));
    std::memcpy(result.data(), values.data(), result.size());
    return result;
}

/// The bytes of a safetensors file with this header and so many bytes of data.
std::string file_text(std::string const& header, std::size_t data_size = 0) {
    std::string text(8, '\0');
    for (std::size_t i = 0; i < 8; ++i) {
        text[i] = static_cast<char>(header.size() >> (8 * i) & 0xFF);
    }
    return text + header + std::string(data_size, 'd');
}

class safetensors : public ::testing::Test {
protected:
    std::string problem(std::string const& text) const {
        write_text(directory_ / "x", text);
        return failure_message([&] { safetensors_file const file(directory_ / "x"); });
    }
    temporary_directory directory_;
};

TEST(dtype, names_round_trip) {
    for (std::size_t i = 0; i < io::dtypes.size(); ++i) {
        auto const type = static_cast<dtype>(i);
        EXPECT_EQ(io::parse_dtype(io::name(type)), type);
    }
    EXPECT_EQ(io::parse_dtype("f32"), std::nullopt);
    EXPECT_EQ(io::parse_dtype(""), std::nullopt);
    EXPECT_EQ(io::name(dtype::boolean), "BOOL");
    EXPECT_EQ(io::name(dtype::f8_e5m2fnuz), "F8_E5M2FNUZ");
    EXPECT_EQ(io::name(dtype::bf16), "BF16");
    EXPECT_EQ(io::name(dtype::u64), "U64");
    EXPECT_EQ(io::bit_size(dtype::f4), 4);
    EXPECT_EQ(io::bit_size(dtype::f6_e3m2), 6);
    EXPECT_EQ(io::bit_size(dtype::f8_e8m0), 8);
    EXPECT_EQ(io::bit_size(dtype::bf16), 16);
    EXPECT_EQ(io::bit_size(dtype::f32), 32);
    EXPECT_EQ(io::bit_size(dtype::c64), 64);
}

TEST_F(safetensors, every_type_round_trips) {
    safetensors_writer writer;
    std::vector<bytes> data;
    for (std::size_t i = 0; i < io::dtypes.size(); ++i) {
        data.push_back(random_bytes(static_cast<std::size_t>(12 * io::dtypes[i].bits / 8), static_cast<unsigned>(i)));
    }
    for (std::size_t i = 0; i < data.size(); ++i) {
        writer.add(std::string(io::dtypes[i].name), static_cast<dtype>(i), {3, 1, 4}, data[i]);
    }
    writer.save(directory_ / "a");
    EXPECT_EQ(directory_.entries(), 1);

    safetensors_file const file(directory_ / "a");
    EXPECT_EQ(file.path(), directory_ / "a");
    EXPECT_EQ(file.names().size(), data.size());
    EXPECT_TRUE(std::ranges::is_sorted(file.names()));
    for (std::size_t i = 0; i < data.size(); ++i) {
        auto const& tensor = file.at(io::dtypes[i].name);
        EXPECT_EQ(tensor.type, static_cast<dtype>(i));
        EXPECT_EQ(tensor.shape, (shape{3, 1, 4}));
        EXPECT_EQ(tensor.size(), 12);
        EXPECT_EQ(copy(tensor.bytes), data[i]);
        auto const width = static_cast<std::uintptr_t>(io::dtypes[i].bits) / 8;
        EXPECT_EQ(width > 0 ? reinterpret_cast<std::uintptr_t>(tensor.bytes.data()) % width : 0, 0)
            << io::dtypes[i].name;
    }
}

TEST_F(safetensors, rank_zero_empty_tensors_and_any_name) {
    std::string const odd_name = "quote\" back\\slash\n\xC3\xA9";
    safetensors_writer writer;
    writer.add("scalar", dtype::f32, {}, bytes_of<float>({2.5F}));
    writer.add("none", dtype::f32, {0}, bytes{});
    writer.add("no rows", dtype::f6_e2m3, {0, 5}, bytes{});
    writer.add("", dtype::u8, {1}, bytes{7});
    writer.add(odd_name, dtype::u8, {1}, bytes{8});
    writer.save(directory_ / "a", {{"title", "x"}, {"format", "other"}});

    safetensors_file const file(directory_ / "a");
    EXPECT_EQ(file.metadata(), (std::map<std::string, std::string>{{"format", "pt"}, {"title", "x"}}));
    EXPECT_EQ(file.at("scalar").size(), 1);
    EXPECT_EQ(io::to_floats(file.at("scalar"), "scalar"), std::vector<float>{2.5F});
    EXPECT_EQ(file.at("none").size(), 0);
    EXPECT_TRUE(io::to_floats(file.at("none"), "none").empty());
    EXPECT_EQ(file.at("no rows").shape, (shape{0, 5}));
    EXPECT_EQ(copy(file.at("").bytes), bytes{7});
    EXPECT_EQ(copy(file.at(odd_name).bytes), bytes{8});
}

TEST_F(safetensors, no_tensors) {
    safetensors_writer{}.save(directory_ / "a");
    EXPECT_TRUE(safetensors_file(directory_ / "a").names().empty());
    EXPECT_EQ(problem(file_text("{}")), "");
    EXPECT_EQ(problem(file_text("{}      ")), "");
}

TEST_F(safetensors, written_bytes_are_canonical) {
    safetensors_writer writer;
    writer.add("z", dtype::i16, {1}, bytes{3, 4});
    writer.add("a", dtype::u8, {1}, bytes{5});
    writer.add("y", dtype::f16, {1}, bytes{1, 2});
    writer.save(directory_ / "a");
    std::string const header = R"({"__metadata__":{"format":"pt"},)"
                               R"("a":{"data_offsets":[4,5],"dtype":"U8","shape":[1]},)"
                               R"("y":{"data_offsets":[0,2],"dtype":"F16","shape":[1]},)"
                               R"("z":{"data_offsets":[2,4],"dtype":"I16","shape":[1]}})";
    std::string const padded = header + std::string((8 - header.size() % 8) % 8, ' ');
    EXPECT_EQ(read_text(directory_ / "a"), file_text(padded) + "\x01\x02\x03\x04\x05");
}

TEST_F(safetensors, tensors_in_any_order_with_unknown_fields_and_unaligned) {
    std::string const header = R"({"f":{"dtype":"F32","shape":[1],"data_offsets":[1,5],"note":[{}]},)"
                               R"("e":{"shape":[4,0],"data_offsets":[1,1],"dtype":"I64"},)"
                               R"("b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})";
    float const value = -1.5F;
    std::string text = file_text(header, 5);
    std::memcpy(text.data() + text.size() - 4, &value, 4);
    ASSERT_EQ(problem(text), "");
    safetensors_file const file(directory_ / "x");
    EXPECT_EQ(file.names(), (std::vector<std::string>{"b", "e", "f"}));
    EXPECT_EQ(io::to_floats(file.at("f"), "f"), std::vector<float>{value});
}

TEST_F(safetensors, missing_tensor_is_named) {
    safetensors_writer{}.save(directory_ / "a");
    safetensors_file const file(directory_ / "a");
    EXPECT_FALSE(file.contains("w"));
    auto const expected = (directory_ / "a").string() + ", tensor 'w': is missing";
    EXPECT_EQ(failure_message([&] { file.at("w"); }), expected);
    checkpoint const model(directory_ / "a");
    EXPECT_EQ(failure_message([&] { model.at("w"); }), expected);
}

TEST_F(safetensors, views_stay_valid_when_the_file_moves) {
    safetensors_writer writer;
    writer.add("w", dtype::u8, {3}, bytes{1, 2, 3});
    writer.save(directory_ / "a");
    safetensors_file file(directory_ / "a");
    auto const view = file.at("w");
    safetensors_file const moved(std::move(file));
    EXPECT_EQ(copy(view.bytes), (bytes{1, 2, 3}));
    EXPECT_EQ(moved.at("w").bytes.data(), view.bytes.data());
}

TEST(to_floats, converts_every_half) {
    std::vector<std::uint16_t> all(65536);
    for (std::size_t i = 0; i < all.size(); ++i) {
        all[i] = static_cast<std::uint16_t>(i);
    }
    bytes const data = bytes_of(all);
    auto const f16 = io::to_floats({dtype::f16, {256, 256}, data}, "f16");
    auto const bf16 = io::to_floats({dtype::bf16, {65536}, data}, "bf16");
    for (std::size_t i = 0; i < all.size(); ++i) {
        int const exponent = static_cast<int>(i >> 10 & 31);
        double const mantissa = static_cast<double>(i & 1023) / 1024;
        double const magnitude = exponent == 0     ? std::ldexp(mantissa, -14)
                                 : exponent < 31   ? std::ldexp(1 + mantissa, exponent - 15)
                                 : mantissa == 0.0 ? std::numeric_limits<double>::infinity()
                                                   : std::numeric_limits<double>::quiet_NaN();
        double const expected = i >= 32768 ? -magnitude : magnitude;
        ASSERT_TRUE(std::isnan(expected) ? std::isnan(f16[i]) : double{f16[i]} == expected) << i;
        ASSERT_EQ(std::signbit(f16[i]), i >= 32768) << i;
        ASSERT_EQ(std::bit_cast<std::uint32_t>(bf16[i]), static_cast<std::uint32_t>(i) << 16) << i;
    }
}

TEST(to_floats, reads_at_any_alignment) {
    std::vector<double> const values{1.5, -0.25, 0.1, 1e300, -0.0};
    std::vector<float> const expected{1.5F, -0.25F, 0.1F, std::numeric_limits<float>::infinity(), -0.0F};
    for (std::size_t offset = 0; offset < 8; ++offset) {
        auto const stored = bytes_of(values);
        bytes data(offset + stored.size());
        std::ranges::copy(stored, data.begin() + static_cast<detent::index_t>(offset));
        EXPECT_EQ(io::to_floats({dtype::f64, {5}, std::span(data).subspan(offset)}, "w"), expected);
    }
}

TEST(to_floats, names_tensor_and_type_it_cannot_convert) {
    bytes const data{1};
    EXPECT_EQ(failure_message([&] {
                  io::to_floats({dtype::i8, {1}, data}, "w");
              }),
              "tensor 'w': has type I8; expected F32, F16, BF16 or F64");
}

// A header of one tensor, fields given as they stand in the JSON text.
std::string one(std::string const& type, std::string const& extents, std::string const& offsets) {
    return R"({"w":{"dtype":)" + type + R"(,"shape":)" + extents + R"(,"data_offsets":)" + offsets + "}}";
}

struct hostile_file {
    std::string text;
    std::string expected; // a part of the message
};

TEST_F(safetensors, hostile_files_get_one_clear_error) {
    std::string const u8 = "\"U8\"";
    std::string const max = "9223372036854775807";
    std::string const a = R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)";
    std::string huge_length(8, '\xFF');
    std::string over_limit = {'\x01', '\xE1', '\xF5', '\x05', 0, 0, 0, 0}; // 100,000,001
    std::string deep = R"({"w":)" + std::string(1'000'000, '[');
    std::vector<hostile_file> const files{
        {"", ": is not a safetensors file: it has only 0 bytes"},
        {"1234567", ": is not a safetensors file: it has only 7 bytes"},
        {huge_length + "{}", ": is not a safetensors file: the header length 18446744073709551615 exceeds the limit"},
        {over_limit + "{}", "the header length 100000001 exceeds the limit of 100000000 bytes"},
        {file_text("{}").substr(0, 9), ": is truncated: the header length is 2 but only 1 bytes follow"},
        {file_text(""), ", header: does not start with '{'"},
        {file_text(" {}"), ", header: does not start with '{'"},
        {file_text("\xEF\xBB\xBF{}"), ", header: does not start with '{'"},
        {file_text("[]"), ", header: does not start with '{'"},
        {file_text("{"), ", header: is not valid JSON: parse error at line 1"},
        {file_text("{}{}"), ", header: is not valid JSON"},
        {file_text(std::string("{}\0\0", 4)), ", header: is not valid JSON: it contains a zero byte"},
        {file_text("{\"\xFF\":1}"), ", header: is not valid JSON"},
        {file_text("{\"\\ud800\":1}"), ", header: is not valid JSON"},
        {file_text(deep), ", header: is nested deeper than 64 levels"},
        {file_text(a + a.substr(1, a.size() - 2) + "}", 4), ", header: repeats the key 'a'"},
        {file_text(R"({"w":{"dtype":"U8","shape":[],"shape":[1],"data_offsets":[0,1]}})", 1),
         "repeats the key 'shape'"},
        {file_text(R"({"__metadata__":{"a":"1","a":"2"}})"), "repeats the key 'a'"},
        {file_text(R"({"__metadata__":[]})"), ", field '__metadata__': is not an object"},
        {file_text(R"({"__metadata__":{"a":1}})"), ", field '__metadata__': the value of 'a' is not a string"},
        {file_text(R"({"w":3})"), ", tensor 'w': is not described by an object"},
        {file_text(R"({"w":{"shape":[],"data_offsets":[0,1]}})", 1), ", tensor 'w', field 'dtype': is missing"},
        {file_text(R"({"w":{"dtype":"U8","data_offsets":[0,1]}})", 1), ", tensor 'w', field 'shape': is missing"},
        {file_text(R"({"w":{"dtype":"U8","shape":[]}})", 1), ", tensor 'w', field 'data_offsets': is missing"},
        {file_text(one("8", "[1]", "[0,1]"), 1), ", tensor 'w', field 'dtype': is not a string"},
        {file_text(one("\"u8\"", "[1]", "[0,1]"), 1), ", tensor 'w', field 'dtype': unknown type 'u8'"},
        {file_text(one(u8, "1", "[0,1]"), 1), ", tensor 'w', field 'shape': is not a list"},
        {file_text(one(u8, "[1,-1]", "[0,1]"), 1), "field 'shape': element 1 is not an integer in [0, 2^63)"},
        {file_text(one(u8, "[1.0]", "[0,1]"), 1), "field 'shape': element 0 is not an integer"},
        {file_text(one(u8, "[\"1\"]", "[0,1]"), 1), "field 'shape': element 0 is not an integer"},
        {file_text(one(u8, "[[1]]", "[0,1]"), 1), "field 'shape': element 0 is not an integer"},
        {file_text(one(u8, "[true]", "[0,1]"), 1), "field 'shape': element 0 is not an integer"},
        {file_text(one(u8, "[9223372036854775808]", "[0,1]"), 1), "field 'shape': element 0 is not an integer"},
        {file_text(one(u8, "[18446744073709551617]", "[0,1]"), 1), "field 'shape': element 0 is not an integer"},
        {file_text(one(u8, "[" + max + "]", "[0,1]"), 1), "field 'shape': is too large"},
        {file_text(one(u8, "[4294967296,4294967296]", "[0,0]")), "field 'shape': is too large"},
        {file_text(one(u8, "[0,4294967296,4294967296]", "[0,0]")), "field 'shape': is too large"},
        {file_text(one("\"F4\"", "[3]", "[0,1]"), 1), "field 'shape': does not fill whole bytes"},
        {file_text(one("\"F6_E2M3\"", "[2]", "[0,1]"), 1), "does not fill whole bytes with elements of type F6_E2M3"},
        {file_text(one(u8, "[1]", "{}"), 1), ", tensor 'w', field 'data_offsets': is not a list"},
        {file_text(one(u8, "[1]", "[0]"), 1), "field 'data_offsets': has 1 elements instead of 2"},
        {file_text(one(u8, "[1]", "[0,1,1]"), 1), "field 'data_offsets': has 3 elements instead of 2"},
        {file_text(one(u8, "[1]", "[0,1.0]"), 1), "field 'data_offsets': element 1 is not an integer"},
        {file_text(one(u8, "[1]", "[-1,0]"), 1), "field 'data_offsets': element 0 is not an integer"},
        {file_text(one(u8, "[1]", "[1,0]"), 1), "field 'data_offsets': [1, 0) ends before it begins"},
        {file_text(one("\"F32\"", "[2,3]", "[0,20]"), 20), "[0, 20) holds 20 bytes, but dtype and shape need 24"},
        {file_text(one(u8, "[9]", "[0,9]"), 8), "[0, 9) lies beyond the 8 bytes of data: the file is truncated"},
        {file_text(one(u8, "[1]", "[9223372036854775806," + max + "]"), 1), "lies beyond the 1 bytes of data"},
        {file_text(one(u8, "[0]", "[5,5]"), 1), "[5, 5) lies beyond the 1 bytes of data"},
        {file_text(one(u8, "[1]", "[1,2]"), 2), "begins at 1, which leaves a hole or an overlap: expected 0"},
        {file_text(a + R"("b":{"dtype":"U8","shape":[4],"data_offsets":[3,7]}})", 7),
         ", tensor 'b', field 'data_offsets': begins at 3, which leaves a hole or an overlap: expected 4"},
        {file_text(a + R"("b":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})", 4), "expected 4"},
        {file_text(a + R"("b":{"dtype":"U8","shape":[2],"data_offsets":[5,7]}})", 7),
         "begins at 5, which leaves a hole"},
        {file_text(a + R"("b":{"dtype":"U8","shape":[0],"data_offsets":[2,2]}})", 4), "expected 4"},
        {file_text(one(u8, "[1]", "[0,1]"), 3), ": has 2 bytes after the last tensor that belong to none"},
        {file_text("{}", 1), ": has 1 bytes after the last tensor that belong to none"},
    };
    for (auto const& [text, expected] : files) {
        auto const message = problem(text);
        EXPECT_TRUE(contains(message, expected)) << "message: " << message << "\nexpected: " << expected;
        EXPECT_EQ(message.find((directory_ / "x").string()), 0) << message;
        EXPECT_LT(message.size(), 600) << message;
        EXPECT_FALSE(contains(message, "\n")) << message;
    }
}

TEST_F(safetensors, hostile_names_are_shown_in_one_short_line) {
    auto const message = problem(file_text(R"({"a\n\u001b[2J)" + std::string(100'000, 'x') + R"(":3})"));
    EXPECT_TRUE(contains(message, "tensor 'a??[2Jxxx")) << message;
    EXPECT_LT(message.size(), 500);
}

/// A valid file with several tensors, for the tests that damage it.
std::string valid_file(temporary_directory const& directory) {
    safetensors_writer writer;
    writer.add("model.weight", dtype::f32, {4, 3}, random_bytes(48, 1));
    writer.add("model.half", dtype::f16, {5}, random_bytes(10, 2));
    writer.add("model.bias", dtype::bf16, {7, 1}, random_bytes(14, 3));
    writer.add("model.packed", dtype::f4, {2, 8}, random_bytes(8, 4));
    writer.add("scalar", dtype::f64, {}, random_bytes(8, 5));
    writer.add("empty", dtype::i64, {0, 3}, bytes{});
    writer.save(directory / "valid", {{"title", "test"}});
    return read_text(directory / "valid");
}

/// Opens a file and touches every byte it hands out. Anything but success or detent::error ends the test program.
bool opens(std::filesystem::path const& path) {
    try {
        checkpoint const model(path);
        unsigned sum = 0;
        for (auto const& name : model.names()) {
            auto const& tensor = model.at(name);
            EXPECT_EQ(tensor.size() * io::bit_size(tensor.type), std::ssize(tensor.bytes) * 8);
            for (auto const byte : tensor.bytes) {
                sum += byte;
            }
            try {
                static_cast<void>(io::to_floats(tensor, name));
            } catch (error const&) {
                EXPECT_NE(tensor.type, dtype::f32);
            }
        }
        return sum < std::numeric_limits<unsigned>::max();
    } catch (error const&) {
        return false;
    }
}

TEST_F(safetensors, every_truncation_is_an_error) {
    auto const text = valid_file(directory_);
    write_text(directory_ / "x", text);
    ASSERT_TRUE(opens(directory_ / "x"));
    for (std::size_t size = 0; size < text.size(); ++size) {
        std::ofstream(directory_ / "x", std::ios::binary) << text.substr(0, size);
        ASSERT_FALSE(opens(directory_ / "x")) << size;
    }
}

TEST_F(safetensors, damaged_bytes_parse_or_throw) {
    auto const text = valid_file(directory_);
    auto const header_end = text.size() - 88;
    std::mt19937 random(1);
    int opened = 0;
    constexpr int rounds = 1'000;
    for (int round = 0; round < rounds; ++round) {
        std::string damaged = text;
        for (auto flips = 1 + random() % 3; flips > 0; --flips) {
            auto const at = round % 2 == 0 ? random() % header_end : random() % text.size();
            // Flip a bit, or put a character with a meaning to JSON.
            damaged[at] = random() % 2 == 0 ? static_cast<char>(damaged[at] ^ (1 << random() % 8))
                                            : "{}[]\",:0919-.e\\ \0"[random() % 17];
        }
        std::ofstream(directory_ / "x", std::ios::binary) << damaged;
        opened += opens(directory_ / "x") ? 1 : 0;
    }
    EXPECT_GT(opened, rounds / 100); // damage to data or to names cannot be seen
    EXPECT_LT(opened, rounds);
}

TEST(safetensors_writer, rejects_wrong_tensors) {
    safetensors_writer writer;
    auto const problem = [&](std::string const& name, dtype type, shape const& extents, std::size_t size) {
        return failure_message([&] { writer.add(name, type, extents, bytes(size)); });
    };
    EXPECT_EQ(problem("w", dtype::f32, {2}, 8), "");
    EXPECT_EQ(problem("w", dtype::f32, {2}, 8), "tensor 'w': was added twice");
    EXPECT_EQ(problem("v", dtype::f32, {2}, 7), "tensor 'v': has 7 bytes, but dtype and shape need 8");
    EXPECT_EQ(problem("v", dtype::f4, {3}, 2), "tensor 'v': does not fill whole bytes with elements of type F4");
    EXPECT_EQ(problem("v", dtype::u8, {-1, -1}, 1), "tensor 'v': has the negative extent -1");
    EXPECT_TRUE(contains(problem("v", dtype::u8, {detent::index_t{1} << 62}, 0), "tensor 'v': is too large"));
    EXPECT_EQ(problem("__metadata__", dtype::u8, {}, 1), "tensor '__metadata__': is a reserved name");
    EXPECT_TRUE(contains(problem("\xFF", dtype::u8, {}, 1), "the name is not valid UTF-8"));
}

TEST_F(safetensors, writer_borrows_or_keeps_bytes) {
    bytes borrowed{1, 2};
    safetensors_writer writer;
    writer.add("borrowed", dtype::u8, {2}, borrowed);
    {
        bytes kept{3, 4};
        writer.add("kept", dtype::u8, {2}, std::move(kept));
    }
    safetensors_writer const copied = writer;
    writer = {};
    borrowed[0] = 9;
    copied.save(directory_ / "a");
    safetensors_file const file(directory_ / "a");
    EXPECT_EQ(copy(file.at("borrowed").bytes), (bytes{9, 2}));
    EXPECT_EQ(copy(file.at("kept").bytes), (bytes{3, 4}));
}

TEST_F(safetensors, a_file_can_be_rewritten_from_its_own_tensors) {
    valid_file(directory_);
    safetensors_file const before(directory_ / "valid");
    safetensors_writer writer;
    for (auto const& name : before.names()) {
        auto const& tensor = before.at(name);
        writer.add("new." + name, tensor.type, tensor.shape, tensor.bytes);
    }
    writer.save(directory_ / "valid");
    safetensors_file const after(directory_ / "valid");
    for (auto const& name : before.names()) {
        EXPECT_EQ(copy(after.at("new." + name).bytes), copy(before.at(name).bytes));
    }
    EXPECT_EQ(directory_.entries(), 1);
}

TEST_F(safetensors, failed_save_leaves_nothing) {
    safetensors_writer writer;
    writer.add("w", dtype::u8, {5000}, bytes(5000));
    auto const problem = [&](std::filesystem::path const& path, std::map<std::string, std::string> const& metadata) {
        return failure_message([&] { writer.save(path, metadata); });
    };
    auto const nowhere = directory_.path() / "missing" / "a";
    EXPECT_TRUE(contains(problem(nowhere, {}), nowhere.string() + ": cannot be created"));
    EXPECT_TRUE(contains(problem(directory_.path(), {}), directory_.path().string() + ": exists and is not a regular"));
    auto const path = directory_ / "a";
    EXPECT_TRUE(contains(problem(path, {{"key", "\xFF"}}), "field '__metadata__': the entry 'key' is not valid UTF-8"));
    EXPECT_TRUE(contains(problem(path, {{"key", std::string(100'000'000, 'x')}}), "the limit is 100000000"));
    EXPECT_EQ(directory_.entries(), 0);
}

TEST_F(safetensors, shards_round_trip) {
    safetensors_writer writer;
    std::vector<std::string> const names{"a", "b", "c", "d", "e"};
    std::vector<std::size_t> const sizes{4, 4, 20, 0, 9};
    for (std::size_t i = 0; i < names.size(); ++i) {
        writer.add(names[i], dtype::u8, {static_cast<detent::index_t>(sizes[i])},
                   random_bytes(sizes[i], static_cast<unsigned>(i)));
    }
    writer.save_checkpoint(directory_.path(), 10, {{"title", "x"}});
    EXPECT_EQ(directory_.entries(), 4); // {a b} {c} {d e} and the index
    auto const listing = io::read_json(directory_ / "model.safetensors.index.json");
    EXPECT_EQ(listing["metadata"]["total_size"], 37);
    EXPECT_EQ(listing["weight_map"]["b"], "model-00001-of-00003.safetensors");
    EXPECT_EQ(listing["weight_map"]["c"], "model-00002-of-00003.safetensors");
    EXPECT_EQ(listing["weight_map"]["d"], "model-00003-of-00003.safetensors");

    checkpoint opened(directory_.path());
    checkpoint const model(std::move(opened));
    EXPECT_EQ(model.path(), directory_.path());
    EXPECT_EQ(model.names(), names);
    ASSERT_EQ(model.files().size(), 3);
    EXPECT_EQ(model.files()[1].metadata().at("title"), "x");
    EXPECT_EQ(model.files()[1].metadata().at("format"), "pt");
    for (std::size_t i = 0; i < names.size(); ++i) {
        EXPECT_TRUE(model.contains(names[i]));
        EXPECT_EQ(copy(model.at(names[i]).bytes), random_bytes(sizes[i], static_cast<unsigned>(i)));
    }
    EXPECT_FALSE(model.contains("f"));
    EXPECT_EQ(failure_message([&] { model.at("f"); }), directory_.path().string() + ", tensor 'f': is missing");
}

TEST_F(safetensors, failed_sharded_save_leaves_nothing) {
    safetensors_writer writer;
    writer.add("a", dtype::u8, {4}, bytes(4));
    writer.add("b", dtype::u8, {4}, bytes(4));
    auto const problem = [&] { return failure_message([&] { writer.save_checkpoint(directory_.path(), 4); }); };

    std::filesystem::create_directory(directory_ / "model-00002-of-00002.safetensors");
    EXPECT_TRUE(contains(problem(), "model-00002-of-00002.safetensors: exists and is not a regular file"));
    EXPECT_EQ(directory_.entries(), 1);
    std::filesystem::remove(directory_ / "model-00002-of-00002.safetensors");
}

TEST_F(safetensors, saving_replaces_the_checkpoint_that_was_there) {
    safetensors_writer writer;
    writer.add("a", dtype::u8, {4}, bytes(4));
    writer.add("b", dtype::u8, {4}, bytes(4));
    auto const files = [&] {
        std::set<std::string> names;
        for (auto const& entry : std::filesystem::directory_iterator(directory_.path())) {
            names.insert(entry.path().filename().string());
        }
        return names;
    };
    write_text(directory_ / "other.safetensors", "kept");
    writer.save_checkpoint(directory_.path(), 8);
    EXPECT_EQ(files(), (std::set<std::string>{"model.safetensors", "other.safetensors"}));
    writer.save_checkpoint(directory_.path(), 4);
    EXPECT_EQ(files(), (std::set<std::string>{"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
                                              "model.safetensors.index.json", "other.safetensors"}));
    EXPECT_EQ(checkpoint(directory_.path()).files().size(), 2U);
    writer.save_checkpoint(directory_.path(), 8);
    EXPECT_EQ(files(), (std::set<std::string>{"model.safetensors", "other.safetensors"}));
    EXPECT_EQ(failure_message([&] { writer.save_checkpoint(directory_.path(), 0); }).empty(), false);
}

TEST_F(safetensors, a_checkpoint_without_tensors) {
    safetensors_writer{}.save_checkpoint(directory_.path(), 10);
    EXPECT_EQ(directory_.entries(), 1);
    EXPECT_TRUE(checkpoint(directory_.path()).names().empty());
}

TEST_F(safetensors, an_index_counts_beside_a_single_file) {
    safetensors_writer writer;
    writer.add("a", dtype::u8, {4}, bytes(4));
    writer.add("b", dtype::u8, {4}, bytes(4));
    writer.save_checkpoint(directory_.path(), 4);
    EXPECT_TRUE(checkpoint(directory_.path()).warnings().empty());
    safetensors_writer stray;
    stray.add("c", dtype::u8, {1}, bytes{3});
    stray.save(directory_ / "model.safetensors");
    {
        checkpoint const both(directory_.path());
        EXPECT_EQ(both.names(), (std::vector<std::string>{"a", "b"}));
        ASSERT_EQ(both.warnings().size(), 1U);
        EXPECT_TRUE(contains(both.warnings()[0], "model.safetensors is not read")) << both.warnings()[0];
    }
    std::filesystem::remove(directory_ / "model-00002-of-00002.safetensors"); // the index is a leftover
    checkpoint const single(directory_.path());
    EXPECT_EQ(single.names(), std::vector<std::string>{"c"});
    ASSERT_EQ(single.warnings().size(), 1U);
    EXPECT_TRUE(contains(single.warnings()[0], "names files that are not there")) << single.warnings()[0];
}

TEST_F(safetensors, a_pointer_of_git_lfs_is_called_so) {
    write_text(directory_ / "a", "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 12345\n");
    EXPECT_EQ(failure_message([&] { io::safetensors_file const file(directory_ / "a"); }),
              (directory_ / "a").string() +
                  ": is not the weights but a pointer of Git LFS to them: 'git lfs pull' there gets them");
}

TEST_F(safetensors, weights_in_pytorchs_format_are_refused_with_what_converts_them) {
    for (auto const* name :
         {"pytorch_model-00002-of-00002.bin", "pytorch_model-00001-of-00002.bin", "training_args.bin"}) {
        std::ofstream(directory_ / name) << "PK";
    }
    std::string const message = failure_message([&] { checkpoint const model(directory_.path()); });
    std::string const path = directory_.path().string();
    EXPECT_TRUE(message.starts_with(path + "/pytorch_model-00001-of-00002.bin: is in PyTorch's own format")) << message;
    EXPECT_TRUE(contains(message, "glob.glob('" + path + "/pytorch_model*.bin')")) << message;
    EXPECT_TRUE(contains(message, "save_file({")) << message;
    EXPECT_TRUE(contains(message, "'" + path + "/model.safetensors'")) << message;
}

TEST_F(safetensors, checkpoint_opens_a_file_or_a_directory) {
    auto const problem = [&] { return failure_message([&] { checkpoint const model(directory_.path()); }); };
    EXPECT_EQ(problem(),
              directory_.path().string() + ": holds neither model.safetensors nor model.safetensors.index.json");
    safetensors_writer writer;
    writer.add("w", dtype::u8, {1}, bytes{3});
    writer.save(directory_ / "model.safetensors");
    EXPECT_EQ(copy(checkpoint(directory_.path()).at("w").bytes), bytes{3});
    EXPECT_EQ(copy(checkpoint(directory_ / "model.safetensors").at("w").bytes), bytes{3});
    write_text(directory_ / "model.safetensors.index.json", "not even JSON");
    EXPECT_EQ(checkpoint(directory_.path()).names(), std::vector<std::string>{"w"});
    auto const missing = directory_.path() / "missing";
    EXPECT_TRUE(contains(failure_message([&] { checkpoint const model(missing); }), missing.string() + ": cannot be"));
}

TEST_F(safetensors, hostile_shard_indexes_get_one_clear_error) {
    safetensors_writer writer;
    writer.add("w", dtype::u8, {1}, bytes{3});
    writer.save(directory_ / "shard.safetensors");
    write_text(directory_ / "broken.safetensors", "?");
    std::string const index_name = "model.safetensors.index.json";
    auto const problem = [&](std::string const& text) {
        write_text(directory_ / index_name, text);
        return failure_message([&] { checkpoint const model(directory_.path()); });
    };
    EXPECT_EQ(problem(R"({"weight_map":{"w":"shard.safetensors"}})"), "");
    std::vector<hostile_file> const indexes{
        {"", index_name + ": is not valid JSON"},
        {"[]", index_name + ", field 'weight_map': is missing or not an object"},
        {"{}", index_name + ", field 'weight_map': is missing or not an object"},
        {R"({"weight_map":[]})", index_name + ", field 'weight_map': is missing or not an object"},
        {R"({"weight_map":{"w":1}})", index_name + ", tensor 'w', field 'weight_map': is not a string"},
        {R"({"weight_map":{"w":"shard.safetensors","w":"x"}})", index_name + ": repeats the key 'w'"},
        {R"({"weight_map":{"w":"../shard.safetensors"}})", "'../shard.safetensors' is not a plain file name"},
        {R"({"weight_map":{"w":"/etc/passwd"}})", "'/etc/passwd' is not a plain file name"},
        {R"({"weight_map":{"w":".."}})", "'..' is not a plain file name"},
        {R"({"weight_map":{"w":""}})", "'' is not a plain file name"},
        {R"({"weight_map":{"w":"a\\b"}})", "'a\\b' is not a plain file name"},
        {R"({"weight_map":{"w":"shard.safetensors\u0000x"}})", "is not a plain file name"},
        {R"({"weight_map":{"w":"none.safetensors"}})", "/none.safetensors: cannot be opened: No such file"},
        {R"({"weight_map":{"w":"broken.safetensors"}})", "/broken.safetensors: is not a safetensors file"},
        {R"({"weight_map":{"v":"shard.safetensors"}})",
         index_name + ", tensor 'v', field 'weight_map': the file 'shard.safetensors' does not contain this tensor"},
    };
    for (auto const& [text, expected] : indexes) {
        auto const message = problem(text);
        EXPECT_TRUE(contains(message, expected)) << text << "\nmessage: " << message;
        EXPECT_EQ(message.find(directory_.path().string()), 0) << message;
    }
}

TEST(header_of_safetensors, of_many_tensors_takes_linear_time) { // quadratic time would be minutes
    temporary_directory const directory;
    std::string header = "{";
    for (int i = 0; i < 200'000; ++i) {
        header += (i > 0 ? ",\"" : "\"") + std::to_string(i) + R"(":{"dtype":"U8","shape":[0],"data_offsets":[0,0]})";
    }
    header += "}";
    std::uint64_t const length = header.size();
    std::string const size(reinterpret_cast<char const*>(&length), sizeof length);
    detent::io::write_text(directory / "model.safetensors", size + header);
    detent::io::checkpoint const many(directory / "");
    EXPECT_EQ(many.files().front().tensors().size(), 200'000U);
    EXPECT_TRUE(many.contains("199999"));
}

TEST(safetensors_writer, writes_the_same_bytes_from_a_file_and_from_a_checkpoint) {
    temporary_directory const directory;
    std::vector<std::uint8_t> large(20'000'000);
    std::mt19937 random(1);
    for (std::size_t i = 0; i < large.size(); i += 1000) {
        large[i] = static_cast<std::uint8_t>(random());
    }
    std::vector<std::uint8_t> const small{1, 2, 3};
    safetensors_writer plain;
    plain.add("large", dtype::u8, {20'000'000}, large);
    plain.add("small", dtype::u8, {3}, small);
    plain.add("empty", dtype::u8, {0}, std::span<std::uint8_t const>());
    plain.save(directory / "source.safetensors");
    checkpoint const source(directory / "source.safetensors");
    safetensors_writer writer;
    writer.keep_in_file(directory.path());
    writer.copy_from(source);
    writer.add("large", dtype::u8, {20'000'000}, source.at("large").bytes);
    {
        auto borrowed = small; // gone before the file is saved
        writer.add("small", dtype::u8, {3}, std::span<std::uint8_t const>(borrowed));
        borrowed.assign(3, 0);
    }
    writer.add("empty", dtype::u8, {0}, std::vector<std::uint8_t>());
    for (int i = 0; i < 2; ++i) {
        writer.save(directory / "copy.safetensors");
        EXPECT_TRUE(read_text(directory / "copy.safetensors") == read_text(directory / "source.safetensors"));
    }
    EXPECT_EQ(directory.entries(), 2);
    EXPECT_TRUE(source.owns(source.at("large").bytes));
    EXPECT_FALSE(source.owns(small));
}

TEST(checkpoint, tells_when_a_file_has_changed) {
    temporary_directory const directory;
    safetensors_writer writer;
    writer.add("w", dtype::u8, {3}, std::vector<std::uint8_t>{1, 2, 3});
    writer.save(directory / "model.safetensors");
    checkpoint const source(directory.path());
    source.expect_unchanged();
    std::filesystem::resize_file(directory / "model.safetensors", 20);
    EXPECT_TRUE(contains(failure_message([&] { source.expect_unchanged(); }), "model.safetensors: has changed"));
}

} // namespace

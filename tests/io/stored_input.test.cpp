// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <gtest/gtest.h>

#include "detent/io/stored_input.hpp"
#include "io/layout_support.hpp"

namespace detent::test {
namespace {

/// How the input of "layer", which has 5 of them, is rounded.
std::optional<io::stored_input> read_input(tensors const& all, nlohmann::json const& layout = detent_settings()) {
    return with_reader(all, layout, [](packed_reader const& reader) { return reader.input("layer", 5); });
}

/// The tensors that `add_input` writes for "layer".
tensors tensors_of_input(io::stored_input const& input) {
    temporary_directory const directory;
    safetensors_writer writer;
    io::add_input(writer, "layer", input);
    writer.save(directory / "model.safetensors");
    return tensors_of(checkpoint(directory / "model.safetensors"));
}

TEST(add_input, what_it_writes_is_read_back) {
    for (io::stored_input const& input :
         {io::stored_input{.grid = "int8sym"}, io::stored_input{.grid = "int4", .scales = {0.1F}, .zeros = {0.0F}},
          io::stored_input{.grid = "e2m1", .scales = {1e-40F}, .shifts = {0, 15, 3, 0, 1}},
          io::stored_input{.grid = "int8", .scales = {1, 2, 3}, .zeros = {4, 5, 6}, .width = 2},
          io::stored_input{.grid = "e2m1", .width = 32, .kind = scale_kind::e8m0},
          io::stored_input{.grid = "e2m1", .width = 16, .kind = scale_kind::ue4m3},
          io::stored_input{.grid = "e2m1", .width = 16, .kind = scale_kind::ue4m3, .unit = 0.01F},
          io::stored_input{.grid = "int8", .kind = scale_kind::bf16}}) {
        for (nlohmann::json const& layout : {gptq_v1(), gptq_v2(), owq_settings()}) {
            std::string const message = failure_message([&] { read_input(tensors_of_input(input), layout); });
            EXPECT_TRUE(contains(message, "'layer.input_")) << message;
            EXPECT_TRUE(contains(message, "the settings in config.json are not those of detent's layout")) << message;
        }
        auto const read = read_input(tensors_of_input(input));
        ASSERT_TRUE(read.has_value());
        EXPECT_EQ(read->grid, input.grid);
        EXPECT_EQ(read->scales, input.scales);
        EXPECT_EQ(read->zeros, input.zeros);
        EXPECT_EQ(read->shifts, input.shifts);
        EXPECT_EQ(read->width, input.width);
        EXPECT_EQ(read->kind, input.kind);
        EXPECT_EQ(read->unit, input.unit);
    }
    tensors const other = tensors_of(io::add_packed, random_packed(int_grid<3>{}, {5, 37}, {1, 37}));
    for (nlohmann::json const& layout : {detent_settings(), gptq_v2()}) {
        EXPECT_FALSE(read_input(other, layout).has_value());
    }
}

TEST(add_input, writes_only_what_there_is) {
    tensors all = tensors_of_input({.grid = "int8sym"});
    ASSERT_EQ(all.size(), 1);
    EXPECT_EQ(all["layer.input_grid"].type, dtype::u8);
    EXPECT_EQ(all["layer.input_grid"].bytes, (std::vector<std::uint8_t>{'i', 'n', 't', '8', 's', 'y', 'm'}));
    all = tensors_of_input({.grid = "int8", .scales = {0.5F}, .zeros = {7.0F}, .shifts = {1, 2, 3, 4, 5}});
    ASSERT_EQ(all.size(), 4);
    EXPECT_EQ(all["layer.input_scale"].type, dtype::f32);
    EXPECT_EQ(all["layer.input_scale"].bytes, io::bytes_of(std::vector{0.5F}));
    EXPECT_EQ(all["layer.input_zero"].type, dtype::f32);
    EXPECT_EQ(all["layer.input_zero"].bytes, io::bytes_of(std::vector{7.0F}));
    EXPECT_EQ(all["layer.input_shifts"].type, dtype::i8);
    EXPECT_EQ(all["layer.input_shifts"].shape, std::vector<index_t>{5});
    all = tensors_of_input({.grid = "e2m1", .width = 16, .kind = scale_kind::ue4m3, .unit = 0.5F});
    ASSERT_EQ(all.size(), 4);
    EXPECT_EQ(all["layer.input_width"].type, dtype::i32);
    EXPECT_EQ(all["layer.input_width"].bytes, io::bytes_of(std::vector<std::int32_t>{16}));
    EXPECT_EQ(all["layer.input_scale_type"].type, dtype::u8);
    EXPECT_EQ(all["layer.input_scale_type"].bytes, (std::vector<std::uint8_t>{'F', '8', '_', 'E', '4', 'M', '3'}));
    EXPECT_EQ(all["layer.input_scale_unit"].type, dtype::f32);
    EXPECT_EQ(all["layer.input_scale_unit"].bytes, io::bytes_of(std::vector{0.5F}));
}

TEST(packed_reader, nonsense_about_inputs_is_refused) {
    tensors const good =
        tensors_of_input({.grid = "int8", .scales = {0.5F}, .zeros = {7.0F}, .shifts = {1, 2, 3, 4, 5}});
    ASSERT_EQ(failure_message([&] { read_input(good); }), "");
    auto const refused = [&](std::string const& name, std::string const& problem,
                             std::function<void(tensors&)> const& change) {
        tensors all = good;
        change(all);
        std::string const message = failure_message([&] { read_input(all); });
        EXPECT_TRUE(contains(message, "'layer.input_" + name + "': ")) << name << ": " << message;
        EXPECT_TRUE(contains(message, problem)) << name << ": " << message;
    };
    refused("grid", "has type I8", [](tensors& t) { t["layer.input_grid"].type = dtype::i8; });
    refused("grid", "is no text", [](tensors& t) { t["layer.input_grid"].shape = {2, 2}; });
    for (float const scale : {0.0F, -0.0F, -1.0F}) {
        refused("scale", "is not positive", [&](tensors& t) { t["layer.input_scale"].set(0, scale); });
    }
    for (float const bad : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
        refused("scale", "not finite", [&](tensors& t) { t["layer.input_scale"].set(0, bad); });
        refused("zero", "not finite", [&](tensors& t) { t["layer.input_zero"].set(0, bad); });
    }
    for (std::string const name : {"scale", "zero"}) {
        std::string const tensor_name = "layer.input_" + name;
        refused(name, "must have the shape (1)", [&](tensors& t) { t[tensor_name].shape = {}; });
        refused(name, "must have the shape (1)", [&](tensors& t) { t[tensor_name] = {dtype::f32, {0}, {}}; });
        refused(name, "has type I32", [&](tensors& t) { t[tensor_name].type = dtype::i32; });
        refused(name, "has type F64",
                [&](tensors& t) { t[tensor_name] = tensor::of(dtype::f64, {1}, std::vector{1.0}); });
    }
    for (std::int8_t const shift : {-1, 16, 127, -128}) {
        refused("shifts", "holds a shift that is not from 0 to 15",
                [&](tensors& t) { t["layer.input_shifts"].set(3, shift); });
    }
    refused("shifts", "has type U8", [](tensors& t) { t["layer.input_shifts"].type = dtype::u8; });
    refused("shifts", "must have the shape (5)",
            [](tensors& t) { t["layer.input_shifts"] = tensor::of(dtype::i8, {4}, std::vector<std::int8_t>(4)); });
    // Each needs the one before it.
    refused("scale", "is there, but 'layer.input_grid' is not", [](tensors& t) { t.erase("layer.input_grid"); });
    refused("zero", "is there, but 'layer.input_scale' is not", [](tensors& t) { t.erase("layer.input_scale"); });
    refused("shifts", "is there, but 'layer.input_scale' is not", [](tensors& t) {
        t.erase("layer.input_scale");
        t.erase("layer.input_zero");
    });
    refused("shifts", "is there, but 'layer.input_scale' is not", [](tensors& t) {
        t = {{"layer.input_shifts", t["layer.input_shifts"]}};
    });
}

TEST(packed_reader, nonsense_about_scales_of_inputs_is_refused) {
    auto const refusal = [](io::stored_input const& input, std::function<void(tensors&)> const& change) {
        tensors all = tensors_of_input(input);
        change(all);
        return failure_message([&] { read_input(all); });
    };
    auto const expect = [&](std::string const& message, std::string const& tensor, std::string const& problem) {
        EXPECT_TRUE(contains(message, "'layer." + tensor + "': ")) << message;
        EXPECT_TRUE(contains(message, problem)) << message;
    };
    io::stored_input const groups{.grid = "int8", .scales = {1, 2, 3}, .zeros = {4, 5, 6}, .width = 2};
    ASSERT_EQ(refusal(groups, [](tensors&) {}), "");
    for (std::int32_t const width : {0, -1, std::numeric_limits<std::int32_t>::min()}) {
        expect(refusal(groups, [&](tensors& t) { t["layer.input_width"].set(0, width); }), "input_width",
               "is not positive");
    }
    for (std::int32_t const width : {1, 3, 5, std::numeric_limits<std::int32_t>::max()}) {
        expect(refusal(groups, [&](tensors& t) { t["layer.input_width"].set(0, width); }), "input_scale",
               "must have the shape (" +
                   std::to_string(width == 1   ? 5
                                  : width == 3 ? 2
                                               : 1) +
                   ")");
    }
    expect(refusal(groups, [](tensors& t) { t.erase("layer.input_width"); }), "input_scale", "must have the shape (1)");
    expect(refusal(groups, [](tensors& t) { t["layer.input_width"].type = dtype::f32; }), "input_width",
           "has type F32");
    expect(refusal(groups,
                   [](tensors& t) {
                       t["layer.input_zero"] = {dtype::f32, {0}, {}};
                   }),
           "input_zero", "must have the shape (3)");
    expect(refusal(groups, [](tensors& t) { t["layer.input_scale"].set(2, 0.0F); }), "input_scale", "not positive");
    expect(refusal({.grid = "int8", .width = 2}, [](tensors& t) { t.erase("layer.input_grid"); }), "input_width",
           "is there, but 'layer.input_grid' is not");

    io::stored_input const in_units{.grid = "e2m1", .width = 2, .kind = scale_kind::ue4m3, .unit = 0.5F};
    ASSERT_EQ(refusal(in_units, [](tensors&) {}), "");
    expect(refusal(in_units, [](tensors& t) { t["layer.input_scale_type"].set(6, std::uint8_t{'4'}); }),
           "input_scale_type", "names the type 'F8_E4M4', which no scales have");
    expect(refusal(in_units,
                   [](tensors& t) {
                       t["layer.input_scale_type"].shape = {7, 1};
                   }),
           "input_scale_type", "is no text");
    expect(refusal({.grid = "e2m1", .kind = scale_kind::e8m0, .unit = 0.5F}, [](tensors&) {}), "input_scale_unit",
           "belongs to scales of type F8_E4M3");
    expect(refusal(in_units, [](tensors& t) { t.erase("layer.input_scale_type"); }), "input_scale_unit",
           "is there, but 'layer.input_scale_type' is not");
    for (float const unit : {0.0F, -1.0F, 0x1p120F}) {
        expect(refusal(in_units, [&](tensors& t) { t["layer.input_scale_unit"].set(0, unit); }), "input_scale_unit",
               "must be a number from 2^-117 to 2^119");
    }
    expect(refusal({.grid = "e2m1", .scales = {1}, .kind = scale_kind::e8m0}, [](tensors&) {}), "input_scale_type",
           "is there, but 'layer.input_scale' is too");
}

} // namespace
} // namespace detent::test

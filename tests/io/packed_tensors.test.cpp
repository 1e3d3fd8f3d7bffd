// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <set>
#include <string>

#include <gtest/gtest.h>

#include "detent/io/packed_tensors.hpp"
#include "io/layout_support.hpp"

namespace detent::test {
namespace {

TEST(layouts, have_names_of_their_own_and_are_found) {
    std::set<std::string_view> names;
    for (auto const* layout : io::layouts()) {
        EXPECT_TRUE(names.insert(layout->name).second) << layout->name;
        EXPECT_EQ(&io::layout_of(layout->id), layout);
        EXPECT_EQ(io::find_layout(layout->name), layout);
        EXPECT_EQ(layout->add == nullptr, layout->settings == nullptr);
        EXPECT_EQ(layout->add == nullptr, layout->obstacle == nullptr);
    }
    EXPECT_EQ(names.size(), 8U);
    EXPECT_EQ(io::find_layout("nonsense"), nullptr);
}

TEST(layouts, what_they_write_names_the_layout_that_reads_it) {
    packed_matrix const w = random_packed(int_grid<4>{}, {32, 64}, {1, 64});
    io::layer_to_save const layer{"layer", &w};
    for (auto const* layout : io::layouts()) {
        if (layout->add == nullptr) {
            continue;
        }
        auto const settings = layout->settings({&layer, 1});
        auto const all = tensors_of(
            [&](safetensors_writer& file, std::string const& name, packed_matrix const& m) {
                layout->add(file, {name, &m}, settings);
            },
            w);
        auto const back = read(all, w.shape(), settings);
        EXPECT_TRUE(dequantize(back) == dequantize(w)) << layout->name;
        EXPECT_EQ(back.codes, w.codes) << layout->name;
        // And from there into any other.
        for (auto const* other : io::layouts()) {
            if (other->add == nullptr || !other->obstacle(back).empty()) {
                continue;
            }
            io::layer_to_save const again{"layer", &back};
            auto const next = other->settings({&again, 1});
            auto const second = tensors_of(
                [&](safetensors_writer& file, std::string const& name, packed_matrix const& m) {
                    other->add(file, {name, &m}, next);
                },
                back);
            auto const last = read(second, w.shape(), next);
            EXPECT_EQ(last.codes, w.codes) << layout->name << other->name;
            EXPECT_EQ(last.scales.scales, w.scales.scales) << layout->name << other->name;
            EXPECT_TRUE(dequantize(last) == dequantize(w)) << layout->name << other->name;
        }
    }
}

TEST(packed_reader, a_method_that_is_not_known_is_refused_by_the_field) {
    auto const problem = [](nlohmann::json const& settings) {
        return failure_message([&] { with_reader({}, settings, [](packed_reader const&) { return 0; }); });
    };
    EXPECT_EQ(problem({{"quant_method", "hqq"}}),
              "config.json, field 'quant_method': is 'hqq', which is not supported");
    EXPECT_EQ(problem({{"quant_method", 4}}), "config.json, field 'quant_method': is not a text");
    EXPECT_EQ(problem({{"bits", 4}}), "config.json, field 'quant_method': is '', which is not supported");
    EXPECT_EQ(problem(detent_settings()), "");
    EXPECT_EQ(problem({{"quant_method", "detent"}}), "") << "as earlier files have it";
}

TEST(packed_reader, packed_weights_without_settings_are_an_error) {
    tensors const all = tensors_of(add_gptq_v2, random_packed(int_grid<4>{}, {32, 64}, {1, 16}));
    std::string const message =
        failure_message([&] { with_reader(all, nlohmann::json::object(), [](packed_reader const&) { return 0; }); });
    EXPECT_TRUE(
        contains(message, "'layer.qweight': is packed, but neither config.json nor quantize_config.json says how"))
        << message;
}

/// A layer of E4M3 as others store it.
tensors fp8_tensors(std::string const& scale, tensor const& scales) {
    tensors all;
    std::vector<std::uint8_t> codes;
    for (int i = 0; i < 6 * 10; ++i) {
        codes.push_back(static_cast<std::uint8_t>(i * 4));
    }
    std::ranges::replace(codes, std::uint8_t{0x7F}, std::uint8_t{0});
    all["layer.weight"] = tensor::of(dtype::f8_e4m3, {6, 10}, codes);
    all["layer." + scale] = scales;
    return all;
}

TEST(fp8_layout, scales_of_blocks_multiply) {
    std::vector<float> const scales{0.5F, 2, 3, 5, 7, 0.25F};
    auto const all = fp8_tensors("weight_scale_inv", tensor::of(dtype::f32, {2, 3}, scales));
    nlohmann::json settings{{"quant_method", "fp8"}, {"fmt", "e4m3"}, {"weight_block_size", {4, 4}}};
    auto const w = read(all, {6, 10}, settings);
    for (index_t r = 0; r < 6; ++r) {
        for (index_t k = 0; k < 10; ++k) {
            float const x = e4m3::decode(all.at("layer.weight").bytes[static_cast<std::size_t>(r * 10 + k)]);
            EXPECT_EQ(w.stored_at(r, k), x * scales[static_cast<std::size_t>(r / 4 * 3 + k / 4)]);
        }
    }
    auto const refused = [&](char const* field, nlohmann::json const& value) {
        auto changed = settings;
        changed[field] = value;
        return failure_message([&] { read(all, {6, 10}, changed); });
    };
    EXPECT_TRUE(contains(refused("weight_block_size", {4}), "field 'weight_block_size': is not two positive integers"));
    EXPECT_TRUE(contains(refused("fmt", "e5m2"), "field 'fmt': is 'e5m2'; only 'e4m3' is read"));
    EXPECT_TRUE(contains(refused("weight_block_size", {2, 4}), "'layer.weight_scale_inv': must have the shape (3, 3)"));
}

TEST(modelopt_layout, one_scale_or_two_levels_of_them) {
    nlohmann::json const fp8{{"quant_method", "modelopt"}, {"quant_algo", "FP8"}};
    auto all = fp8_tensors("weight_scale", tensor::of(dtype::f32, {}, std::vector{0.5F}));
    all["layer.input_scale"] = tensor::of(dtype::f32, {}, std::vector{0.25F});
    EXPECT_EQ(read(all, {6, 10}, fp8).stored_at(1, 2), e4m3::decode(48) * 0.5F);
    auto const input_of = [](tensors const& t, nlohmann::json const& settings) {
        return with_reader(t, settings, [](packed_reader const& reader) { return reader.input("layer", 32); });
    };
    EXPECT_EQ(input_of(all, fp8)->grid, "ocp-e4m3");
    EXPECT_EQ(input_of(all, fp8)->scales, std::vector{0.25F});

    tensors four;
    four["layer.weight"] = tensor::of(dtype::u8, {1, 16}, std::vector<std::uint8_t>(16, 0x72)); // 1, 6, 1, 6, ...
    four["layer.weight_scale"] = tensor::of(dtype::f8_e4m3, {1, 2}, std::vector<std::uint8_t>{0x40, 0x00}); // 2 and 0
    four["layer.weight_scale_2"] = tensor::of(dtype::f32, {}, std::vector{0.125F});
    four["layer.input_scale"] = tensor::of(dtype::f32, {}, std::vector{0.25F});
    nlohmann::json const nvfp4{{"quant_method", "modelopt"}, {"quant_algo", "NVFP4"}};
    auto const w = read(four, {1, 32}, nvfp4);
    EXPECT_EQ(w.stored_at(0, 0), 0.25F);
    EXPECT_EQ(w.stored_at(0, 1), 1.5F);
    EXPECT_EQ(w.stored_at(0, 16), 0) << "a scale of 0";
    EXPECT_EQ(w.stored_at(0, 31), 0);
    EXPECT_EQ(input_of(four, nvfp4)->unit, 0.25F);
    EXPECT_EQ(input_of(four, nvfp4)->width, 16);
    EXPECT_TRUE(contains(failure_message([&] {
                             read(four, {1, 32}, {{"quant_method", "modelopt"}, {"quant_algo", "W4A8_AWQ"}});
                         }),
                         "field 'quant_algo': is 'W4A8_AWQ'; only 'FP8' and 'NVFP4' are read"));
}

TEST(mxfp4_layout, experts_lie_in_one_tensor) {
    tensors all;
    std::vector<std::uint8_t> codes, powers;
    for (int i = 0; i < 2 * 3 * 2 * 16; ++i) {
        codes.push_back(static_cast<std::uint8_t>(i * 37));
    }
    for (int i = 0; i < 2 * 3 * 2; ++i) {
        powers.push_back(static_cast<std::uint8_t>(120 + i));
    }
    all["up_blocks"] = tensor::of(dtype::u8, {2, 3, 2, 16}, codes);
    all["up_scales"] = tensor::of(dtype::u8, {2, 3, 2}, powers);
    nlohmann::json const settings{{"quant_method", "mxfp4"}};
    auto const w = with_reader(all, settings, [](packed_reader const& r) {
        return r.read_expert("up", 2, 1, {3, 64});
    });
    ASSERT_TRUE(w.has_value());
    for (index_t r = 0; r < 3; ++r) {
        for (index_t k = 0; k < 64; ++k) {
            auto const byte = codes[static_cast<std::size_t>(((3 + r) * 2 + k / 32) * 16 + k % 32 / 2)];
            float const x = e2m1::decode(static_cast<code>(k % 2 == 0 ? byte & 15 : byte >> 4));
            auto const e = powers[static_cast<std::size_t>((3 + r) * 2 + k / 32)];
            EXPECT_EQ(w->stored_at(r, k), std::ldexp(x, e - 127));
        }
    }
    EXPECT_FALSE(with_reader(all, settings, [](packed_reader const& r) {
        return r.read_expert("gate", 2, 1, {3, 64});
    }));
}

TEST(take_rows, takes_codes_scales_and_weak_columns) {
    auto const w = random_weak(int_grid<4>{}, {8, 40}, {1, 10}, 3, float_format::f16, true);
    auto const some = io::take_rows(w, {5, 0, 7});
    auto const all = dequantize(w), taken = dequantize(some);
    for (index_t k = 0; k < 40; ++k) {
        EXPECT_EQ(taken(0, k), all(5, k));
        EXPECT_EQ(taken(1, k), all(0, k));
        EXPECT_EQ(taken(2, k), all(7, k));
    }
    auto const blocks = random_packed(e4m3{}, {8, 40}, {4, 10});
    EXPECT_EQ(dequantize(io::take_rows(blocks, {4, 5, 6, 7})), dequantize(blocks).bottomRows(4));
    EXPECT_TRUE(contains(failure_message([&] { io::take_rows(blocks, {2, 3}); }), "rows that share scales"));
    EXPECT_TRUE(contains(failure_message([&] { io::take_rows(blocks, {8}); }), "are not of the matrix"));
}

} // namespace
} // namespace detent::test

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "detent/io/float_codes.hpp"
#include "detent/io/layout_compressed_tensors.hpp"
#include "io/layout_support.hpp"

namespace detent::test {
namespace {

using nlohmann::json;

/// The words that compressed-tensors 0.17.1 makes (`pack_to_int32`) of the integers ((7 r + 5 k) mod 2^bits) -
/// 2^(bits - 1), (2, 20), and of the zero points ((3 r + g) mod 2^bits) - 2^(bits - 1), (12, 2), along the rows.
struct packed_words {
    int bits;
    std::vector<std::uint32_t> codes;
    std::vector<std::uint32_t> zeros;
};
std::vector<packed_words> const words_of_the_client{
    {2, {0xe4e4e4e4, 0xe4, 0x93939393, 0x93}, {0x6c6c6c, 0xb1b1b1}},
    {3, {0x2878cea8, 0x3aa1e33a, 0x27543c67, 0x319d50f1}, {0x18abc398, 0x21cc55e1, 0xe, 0x17}},
    {4, {0x3e94fa50, 0xb61c72d8, 0xfa50, 0xa50b61c7, 0x2d83e94f, 0x61c7}, {0x52fc9630, 0x630da741, 0x1eb8, 0x2fc9}},
    {5,
     {0x3347a8a0, 0x2f26a07e, 0x2b05983c, 0x3fa, 0x1bb4587, 0x3d9a3d45, 0x39793503, 0xc1},
     {0x1ec49860, 0x20d51c81, 0x3ede2b2, 0x5fe66d3}},
    {6,
     {0x143ca140, 0x2da23799, 0x607cdf2, 0x1f69540b, 0x1b591307, 0x34bea960, 0xd203fb9, 0x2685c5d2},
     {0xc2460c0, 0xd287101, 0x1b61548f, 0x1c6564d0, 0x85e, 0x89f}},
    {7,
     {0x1e28280, 0x4678c94, 0x6ec96a8, 0x971a0bc, 0xbf6aad0, 0x2c44607, 0x549501b, 0x7ce5a2f, 0xa536443, 0xcd86e57},
     {0x1218180, 0x141c201, 0x2a4878c, 0x2c4c80d, 0x4278d98, 0x447ce19}},
    {8,
     {0xf0a0500, 0x231e1914, 0x37322d28, 0x4b46413c, 0x5f5a5550, 0x16110c07, 0x2a25201b, 0x3e39342f, 0x524d4843,
      0x66615c57},
     {0x9060300, 0xa070401, 0x15120f0c, 0x1613100d, 0x211e1b18, 0x221f1c19}},
};

/// Integers (rows, cols) whose code at (r, k) is (a r + b k) mod 2^bits.
packed_matrix counted(int bits, extents shape, index_t width, unsigned a, unsigned b, bool symmetric) {
    packed_matrix w = io::integer_matrix(bits, shape, symmetric ? -(1 << (bits - 1)) : 0);
    w.tile = {1, width};
    w.scales = scale_store(shape, w.tile, float_format::f16, !symmetric);
    std::vector<code> codes;
    for (index_t r = 0; r < shape.rows; ++r) {
        for (index_t k = 0; k < shape.cols; ++k) {
            auto const sum = a * static_cast<unsigned>(r) + b * static_cast<unsigned>(k);
            codes.push_back(static_cast<code>(sum % (1U << bits)));
        }
        for (index_t g = 0; g < w.scales.tiles.cols; ++g) {
            auto const zero = (3 * static_cast<unsigned>(r) + static_cast<unsigned>(g)) % (1U << bits);
            w.scales.set(r, g, {0.5F, static_cast<float>(zero)});
        }
    }
    w.codes = pack_rows(bits, shape, codes.data());
    return w;
}

/// The settings of one layer.
json settings_for(packed_matrix const& w, io::stored_input const* input = nullptr) {
    io::layer_to_save const layer{"layer", &w, input};
    return io::compressed_tensors_layout().settings({&layer, 1});
}

tensors stored_tensors(packed_matrix const& w, io::stored_input const* input = nullptr) {
    return tensors_of(
        [&](safetensors_writer& file, std::string const& name, packed_matrix const& m) {
            io::add_compressed(file, {name, &m, input});
        },
        w);
}

template <class T> std::vector<T> values(tensor const& t) {
    std::vector<T> v(t.bytes.size() / sizeof(T));
    std::memcpy(v.data(), t.bytes.data(), t.bytes.size());
    return v;
}

TEST(add_compressed, packs_as_the_client_does) {
    for (auto const& [bits, codes, zeros] : words_of_the_client) {
        auto const symmetric = stored_tensors(counted(bits, {2, 20}, 20, 7, 5, true));
        EXPECT_EQ(values<std::uint32_t>(symmetric.at("layer.weight_packed")), codes) << bits;
        EXPECT_EQ(symmetric.at("layer.weight_packed").type, dtype::i32);
        EXPECT_EQ(values<std::int64_t>(symmetric.at("layer.weight_shape")), (std::vector<std::int64_t>{2, 20}));
        EXPECT_EQ(symmetric.at("layer.weight_scale").shape, (std::vector<index_t>{2, 1}));
        EXPECT_EQ(symmetric.size(), 3U) << "no zero points";
        auto const all = stored_tensors(counted(bits, {12, 20}, 10, 7, 5, false));
        EXPECT_EQ(values<std::uint32_t>(all.at("layer.weight_zero_point")), zeros) << bits;
        EXPECT_EQ(all.at("layer.weight_zero_point").shape, (std::vector<index_t>{std::ssize(zeros) / 2, 2}));
        EXPECT_EQ(all.at("layer.weight_scale").shape, (std::vector<index_t>{12, 2}));
    }
}

TEST(add_compressed, packs_fp4_as_the_client_does) {
    packed_matrix w = io::fp4_matrix({1, 16}, std::vector<std::uint8_t>(8));
    std::vector<float> const numbers{0, .5F, 1, 1.5F, 2, 3, 4, 6, -.5F, -6, -1, -3, -4, -1.5F, -2, 6};
    std::vector<code> codes;
    for (float const x : numbers) {
        codes.push_back(static_cast<code>(std::ranges::find(w.table, x) - w.table.begin()));
    }
    w.codes = pack_rows(4, {1, 16}, codes.data());
    w.tile = {1, 16};
    w.scales = scale_store(w.extent, w.tile, {scale_kind::ue4m3, 0.25F}, false);
    w.scales.set(0, 0, {0.75F, 0});
    auto const all = stored_tensors(w);
    EXPECT_EQ(all.at("layer.weight_packed").bytes, (std::vector<std::uint8_t>{16, 50, 84, 118, 249, 218, 190, 124}));
    EXPECT_EQ(all.at("layer.weight_packed").type, dtype::u8);
    EXPECT_EQ(all.at("layer.weight_scale").type, dtype::f8_e4m3);
    EXPECT_EQ(e4m3::decode(all.at("layer.weight_scale").bytes.at(0)), 3);
    EXPECT_EQ(values<float>(all.at("layer.weight_global_scale")), std::vector<float>{4}) << "it divides";
}

void expect_round_trip(packed_matrix const& w, std::string const& format) {
    ASSERT_EQ(io::compressed_obstacle(w), "");
    auto const settings = settings_for(w);
    EXPECT_EQ(settings.at("format"), format);
    auto const back = read(stored_tensors(w), w.shape(), settings);
    EXPECT_TRUE(dequantize(back) == dequantize(w)) << format;
    EXPECT_EQ(back.tile, w.tile) << format;
    EXPECT_EQ(back.scales.format.kind, w.scales.format.kind) << format;
    EXPECT_EQ(back.codes, w.codes) << format;
    EXPECT_EQ(back.scales.scales, w.scales.scales) << format;
}

TEST(add_compressed, integers_are_read_back) {
    for (bool const symmetric : {true, false}) {
        for (int bits = 2; bits <= 8; ++bits) {
            for (index_t const width : {128, 64, 32}) {
                for (float_format const format : test::all_formats) {
                    auto w = counted(bits, {6, 128}, width, 7, 5, symmetric);
                    w.scales.format = format;
                    expect_round_trip(w, "pack-quantized");
                    w.scales.zeros.clear();
                }
            }
            auto reordered = counted(bits, {6, 128}, 32, 7, 5, symmetric);
            reordered.map = input_map(permutation{test::random_order(128, 2)}, 128);
            auto const settings = settings_for(reordered);
            EXPECT_EQ(settings["config_groups"]["group_0"]["weights"]["actorder"], "group");
            auto const back = read(stored_tensors(reordered), reordered.shape(), settings);
            EXPECT_TRUE(dequantize(back) == dequantize(reordered)) << bits;
        }
    }
}

TEST(add_compressed, zero_points_in_the_middle_are_none) {
    auto w = counted(4, {6, 128}, 32, 7, 5, false);
    std::ranges::fill(w.scales.zeros, 8.0F);
    auto const settings = settings_for(w);
    EXPECT_EQ(settings["config_groups"]["group_0"]["weights"]["symmetric"], true);
    EXPECT_FALSE(stored_tensors(w).contains("layer.weight_zero_point"));
    EXPECT_TRUE(dequantize(read(stored_tensors(w), w.shape(), settings)) == dequantize(w));
}

TEST(add_compressed, floats_are_read_back) {
    for (extents const tile : {extents{1, 128}, {6, 128}, {3, 64}, {1, 32}}) {
        for (float_format const format : test::all_formats) {
            auto w = random_packed(e4m3{}, {6, 128}, tile);
            w.scales.format = format;
            expect_round_trip(w, "float-quantized");
        }
    }
    auto const with_bytes = [](auto const& grid, index_t width, scale_format format) {
        auto w = random_packed(grid, {6, 128}, {1, width});
        w.scales.format = format;
        for (std::size_t i = 0; i < w.scales.scales.size(); ++i) {
            w.scales.scales[i] = scale_of(format, static_cast<std::uint8_t>(100 + i % 26));
        }
        return w;
    };
    expect_round_trip(with_bytes(e2m1{}, 32, scale_kind::e8m0), "mxfp4-pack-quantized");
    expect_round_trip(with_bytes(e4m3{}, 32, scale_kind::e8m0), "mxfp8-quantized");
    for (float const unit : {1.0F, 0.25F, 1 / 2688.0F, 1 / 1234.5F}) { // of which each is the reciprocal of a float
        expect_round_trip(with_bytes(e2m1{}, 16, {scale_kind::ue4m3, unit}), "nvfp4-pack-quantized");
    }
}

TEST(compressed_obstacle, says_what_the_layout_cannot_hold) {
    auto const obstacle = [](auto const& grid, extents shape, extents tile) {
        return io::compressed_obstacle(random_packed(grid, shape, tile));
    };
    EXPECT_EQ(obstacle(nf4{}, {32, 32}, {1, 32}), "its grids are integers, E4M3 (ocp-e4m3) and E2M1");
    EXPECT_EQ(obstacle(e2m1{}, {32, 32}, {1, 32}),
              "its E2M1 weights have E4M3 scales of 16 inputs or E8M0 scales of 32");
    EXPECT_EQ(obstacle(int_grid<4>{}, {32, 32}, {2, 32}), "each of its rows has its own scales");
    EXPECT_EQ(obstacle(int_grid<4>{}, {32, 32}, {1, 24}), "its groups are all of the same width");
    EXPECT_EQ(io::compressed_obstacle(random_weak(int_grid<4>{}, {32, 32}, {1, 32}, 2, float_format::f16)),
              "it has no weak columns");
    auto w = random_packed(int_grid<4>{}, {32, 32}, {1, 32});
    w.scales.format = scale_kind::e8m0;
    EXPECT_EQ(io::compressed_obstacle(w), "its scales are f16, bf16 or f32");
    for (std::string const kind : test::kinds_of_maps) {
        packed_matrix mapped = random_packed(int_grid<4>{}, {32, 32}, {1, 32});
        mapped.map = test::random_map(kind, 32, 16);
        EXPECT_EQ(io::compressed_obstacle(mapped),
                  kind.empty() || kind == "p" ? "" : "its inputs are only put in another order");
    }
}

TEST(add_compressed, inputs_are_read_back) {
    auto const eight = random_packed(int_grid<8, zero::none>{}, {6, 128}, {1, 128});
    auto four = random_packed(e2m1{}, {6, 128}, {1, 16});
    four.scales.format = {scale_kind::ue4m3, 0.5F};
    std::ranges::fill(four.scales.scales, 0.5F);
    auto mx = random_packed(e2m1{}, {6, 128}, {1, 32});
    mx.scales.format = scale_kind::e8m0;
    std::ranges::fill(mx.scales.scales, 0.5F);
    std::vector<std::pair<packed_matrix const*, io::stored_input>> const cases{
        {&eight, {.grid = "int8sym"}},
        {&eight, {.grid = "int8"}},
        {&eight, {.grid = "int8", .scales = {0.1F}, .zeros = {7.0F}}},
        {&eight, {.grid = "ocp-e4m3", .scales = {0.1F}}},
        {&four, {.grid = "e2m1", .width = 16, .kind = scale_kind::ue4m3, .unit = 0.125F}},
        {&mx, {.grid = "e2m1", .width = 32, .kind = scale_kind::e8m0}}};
    for (auto const& [w, input] : cases) {
        ASSERT_EQ(io::compressed_input_obstacle(w, input), "");
        auto const settings = settings_for(*w, &input);
        auto const back = with_reader(stored_tensors(*w, &input), settings,
                                      [&](packed_reader const& reader) { return reader.input("layer", 128); });
        ASSERT_TRUE(back.has_value()) << input.grid;
        EXPECT_EQ(back->grid, input.grid);
        EXPECT_EQ(back->scales, input.scales);
        EXPECT_EQ(back->zeros, input.zeros);
        EXPECT_EQ(back->width, input.width);
        EXPECT_EQ(back->kind, input.kind);
        EXPECT_EQ(back->unit, input.unit);
        EXPECT_TRUE(dequantize(read(stored_tensors(*w, &input), w->shape(), settings)) == dequantize(*w));
    }
    EXPECT_EQ(settings_for(eight, &cases[0].second).at("format"), "int-quantized");
    EXPECT_EQ(io::compressed_input_obstacle(nullptr, {.grid = "int8"}), "inputs are quantized only where weights are");
    EXPECT_EQ(io::compressed_input_obstacle(&eight, {.grid = "nf4"}),
              "its inputs are integers, E4M3 (ocp-e4m3) or E2M1");
    EXPECT_EQ(io::compressed_input_obstacle(&eight, {.grid = "int8", .width = 16}),
              "its inputs have a scale for each token, or are MXFP4 or NVFP4");
    EXPECT_EQ(io::compressed_input_obstacle(&four, {.grid = "e2m1", .width = 16, .kind = scale_kind::ue4m3}),
              "the E4M3 scales of its inputs have one unit for all tokens");
    EXPECT_EQ(io::compressed_input_obstacle(&eight, {.grid = "int8", .scales = {1}, .shifts = {1}}),
              "its inputs are not shifted");
}

TEST(compressed_json, has_a_scheme_for_each_kind_of_layer) {
    auto const four = random_packed(int_grid<4>{}, {32, 64}, {1, 32});
    auto const eight = random_packed(int_grid<8, zero::none>{}, {32, 64}, {1, 64});
    auto const fp8 = random_packed(e4m3{}, {32, 64}, {1, 64});
    auto const layers = std::vector<io::layer_to_save>{
        {"a", &four}, {"b", &eight}, {"c", &four}, {"d", &fp8}, {"lm_head", nullptr, nullptr, false}};
    auto const settings = io::compressed_tensors_layout().settings(layers);
    EXPECT_EQ(settings["format"], "mixed-precision");
    EXPECT_EQ(settings["ignore"], json::array({"lm_head"}));
    auto const& groups = settings["config_groups"];
    ASSERT_EQ(groups.size(), 3U);
    EXPECT_EQ(groups["group_0"]["targets"], json::array({"a", "c"}));
    EXPECT_EQ(groups["group_0"]["format"], "pack-quantized");
    EXPECT_EQ(groups["group_0"]["weights"]["group_size"], 32);
    EXPECT_EQ(groups["group_1"]["weights"]["strategy"], "channel");
    EXPECT_EQ(groups["group_2"]["format"], "float-quantized");
    io::compressed_schemes const schemes(io::quantization_settings(settings, "config.json"));
    EXPECT_EQ(schemes.of("c").weights.bits, 4);
    EXPECT_EQ(schemes.of("b").weights.bits, 8);
    EXPECT_TRUE(schemes.of("d").weights.is_float);
    auto const one = io::compressed_tensors_layout().settings(std::span(layers).first(1));
    EXPECT_EQ(one["config_groups"]["group_0"]["targets"], json::array({"Linear"}));
}

/// The settings of integers of 4 bits, to be changed.
json four_bits() { return settings_for(random_packed(int_grid<4>{}, {32, 64}, {1, 32})); }

std::string problem_of_settings(std::function<void(json&)> const& change) {
    json settings = four_bits();
    change(settings);
    return failure_message(
        [&] { io::compressed_schemes(io::quantization_settings(settings, "config.json")).of("model.layer"); });
}

TEST(compressed_schemes, impossible_settings_are_refused_by_the_field) {
    auto const refused = [](std::string const& field, std::string const& problem,
                            std::function<void(json&)> const& change) {
        std::string const message = problem_of_settings(change);
        EXPECT_TRUE(contains(message, "config.json, field '" + field + "'")) << message;
        EXPECT_TRUE(contains(message, problem)) << message;
    };
    auto const weights = [](json& s) -> json& { return s["config_groups"]["group_0"]["weights"]; };
    EXPECT_EQ(problem_of_settings([](json&) {}), "");
    refused("config_groups", "names no scheme", [](json& s) { s.erase("config_groups"); });
    refused("config_groups.W4A16", "only named", [](json& s) { s["config_groups"] = {{"W4A16", {"Linear"}}}; });
    refused("config_groups.group_0.targets", "is no list",
            [](json& s) { s["config_groups"]["group_0"].erase("targets"); });
    refused("config_groups.group_0.targets", "which is not understood",
            [](json& s) { s["config_groups"]["group_0"]["targets"] = {"re:(?i)["}; });
    refused("config_groups.group_0.format", "'marlin-24', which is not read",
            [](json& s) { s["config_groups"]["group_0"]["format"] = "marlin-24"; });
    refused("quantization_status", "only 'compressed' is read", [](json& s) { s["quantization_status"] = "frozen"; });
    refused("sparsity_config.format", "only 'dense' is read", [](json& s) {
        s["sparsity_config"] = {{"format", "sparse-24-bitmask"}};
    });
    refused("transform_config", "not read", [](json& s) {
        s["transform_config"] = {{"config_groups", {{"R1", {{"type", "hadamard"}}}}}};
    });
    std::string const at = "config_groups.group_0.weights.";
    refused(at + "num_bits", "integers have 1 to 8", [&](json& s) { weights(s)["num_bits"] = 9; });
    refused(at + "num_bits", "floats have 4 or 8", [&](json& s) {
        weights(s)["type"] = "float";
        weights(s)["num_bits"] = 6;
    });
    refused(at + "type", "'complex'", [&](json& s) { weights(s)["type"] = "complex"; });
    refused(at + "strategy", "'spiral', which is not known", [&](json& s) { weights(s)["strategy"] = "spiral"; });
    refused(at + "group_size", "but there are groups", [&](json& s) { weights(s)["group_size"] = -1; });
    refused(at + "group_size", "is not an integer", [&](json& s) { weights(s)["group_size"] = "many"; });
    refused(at + "block_structure", "two positive", [&](json& s) { weights(s)["strategy"] = "block"; });
    refused(at + "actorder", "'sideways'", [&](json& s) { weights(s)["actorder"] = "sideways"; });
    refused(at + "symmetric", "neither true nor false", [&](json& s) { weights(s)["symmetric"] = "yes"; });
    refused(at + "dynamic", "not for weights", [&](json& s) { weights(s)["dynamic"] = true; });
    refused("config_groups.group_0.output_activations", "not read",
            [&](json& s) { s["config_groups"]["group_0"]["output_activations"] = weights(s); });
    refused("config_groups", "has no scheme for layer 'model.layer'",
            [](json& s) { s["config_groups"]["group_0"]["targets"] = {"re:.*down_proj"}; });
    EXPECT_EQ(problem_of_settings([](json& s) { s["config_groups"]["group_0"]["targets"] = {"re:.*lay"}; }), "");
    EXPECT_EQ(problem_of_settings([](json& s) { s["config_groups"]["group_0"]["targets"] = {"model.layer"}; }), "");
}

TEST(read_compressed, later_versions_pack_without_gaps) {
    auto const w = counted(3, {6, 128}, 32, 7, 5, false);
    auto all = stored_tensors(w);
    auto const settings = settings_for(w);
    auto const dense = [](std::vector<code> const& codes, index_t rows, index_t cols) { // rows of whole words
        std::vector<std::uint32_t> words(static_cast<std::size_t>(rows * ceil_div(cols * 3, 32)));
        for (index_t r = 0; r < rows; ++r) {
            for (index_t bit = 0; bit < cols * 3; ++bit) {
                std::uint32_t const b = codes[static_cast<std::size_t>(r * cols + bit / 3)] >> (bit % 3) & 1U;
                words[static_cast<std::size_t>(r * ceil_div(cols * 3, 32) + bit / 32)] |= b << (bit % 32);
            }
        }
        return words;
    };
    all["layer.weight_packed"] =
        tensor::of(dtype::i32, {6, 12}, dense(io::linear_codes(3, {6, 128}, w.codes.bytes()), 6, 128));
    std::vector<std::uint32_t> zeros(4); // 6 rows of 3 bits are a word for each of 4 groups
    for (index_t r = 0; r < 6; ++r) {
        for (index_t g = 0; g < 4; ++g) {
            zeros[static_cast<std::size_t>(g)] |= static_cast<std::uint32_t>(w.scales.at(r, g).zero) << (3 * r);
        }
    }
    all["layer.weight_zero_point"] = tensor::of(dtype::i32, {1, 4}, zeros);
    EXPECT_TRUE(dequantize(read(all, w.shape(), settings)) == dequantize(w));
}

TEST(read_compressed, integers_in_bytes) {
    auto const w = counted(4, {6, 128}, 32, 7, 5, false);
    json settings = settings_for(w);
    settings["config_groups"]["group_0"]["format"] = "naive-quantized";
    auto all = stored_tensors(w);
    std::vector<std::int8_t> codes, zeros;
    for (index_t r = 0; r < 6; ++r) {
        for (index_t k = 0; k < 128; ++k) {
            codes.push_back(static_cast<std::int8_t>(w.code_at(r, k) - 8));
        }
        for (index_t g = 0; g < 4; ++g) {
            zeros.push_back(static_cast<std::int8_t>(w.scales.at(r, g).zero - 8));
        }
    }
    all["layer.weight"] = tensor::of(dtype::i8, {6, 128}, codes);
    all["layer.weight_zero_point"] = tensor::of(dtype::i8, {6, 4}, zeros);
    all.erase("layer.weight_packed");
    all.erase("layer.weight_shape");
    EXPECT_TRUE(dequantize(read(all, w.shape(), settings)) == dequantize(w));
    expect_refused(
        all, w.shape(), "weight", "holds an integer of more than 4 bits",
        [](tensors& t) { t["layer.weight"].set(3, std::int8_t{8}); }, settings);
}

TEST(read_compressed, nonsense_is_refused) {
    auto const w = counted(4, {6, 128}, 32, 7, 5, false);
    auto const good = stored_tensors(w);
    json const settings = settings_for(w);
    auto const refused = [&](std::string const& name, std::string const& problem,
                             std::function<void(tensors&)> const& change) {
        expect_refused(good, w.shape(), name, problem, change, settings);
    };
    for (std::string const name : {"weight_packed", "weight_shape", "weight_scale", "weight_zero_point"}) {
        refused(name, "is missing", [&](tensors& t) { t.erase("layer." + name); });
        refused(name, "must have the shape", [&](tensors& t) { t["layer." + name].shape.push_back(1); });
    }
    refused("weight_shape", "is not (6, 128)", [](tensors& t) { t["layer.weight_shape"].set(0, std::int64_t{7}); });
    refused("weight_packed", "has type F32", [](tensors& t) { t["layer.weight_packed"].type = dtype::f32; });
    refused("weight_scale", "not finite", [](tensors& t) { t["layer.weight_scale"].set(0, std::uint16_t{0x7E00}); });
    refused("weight_g_idx", "its groups are not of 32 inputs each", [](tensors& t) {
        t["layer.weight_g_idx"] = tensor::of(dtype::i32, {128}, std::vector<std::int32_t>(128));
    });
    expect_survives(good, w.shape(), settings);
    auto const fp8 = random_packed(e4m3{}, {6, 128}, {1, 128});
    expect_refused(
        stored_tensors(fp8), fp8.shape(), "weight", "uses a code that stands for no number",
        [](tensors& t) { t["layer.weight"].bytes[9] = 0x7F; }, settings_for(fp8));
}

} // namespace
} // namespace detent::test

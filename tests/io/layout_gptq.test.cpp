// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <gtest/gtest.h>

#include "detent/io/layout_gptq.hpp"
#include "io/layout_support.hpp"

namespace detent::test {
namespace {

template <Grid G> void expect_gptq_round_trip(G const& grid) {
    std::vector<packed_matrix> matrices;
    for (extents const shape : {extents{32, 32}, {64, 160}}) {
        for (index_t const width : {shape.cols, index_t{32}, index_t{24}, index_t{1}}) {
            for (bool const reordered : {false, true}) {
                matrices.push_back(random_packed(grid, shape, {1, width}, reordered));
                ASSERT_EQ(io::gptq_obstacle(matrices.back()), "");
            }
        }
    }
    auto const read = written_and_read(add_gptq_v2, matrices);
    for (std::size_t i = 0; i < matrices.size(); ++i) {
        packed_matrix const& w = matrices[i];
        ASSERT_TRUE(dequantize(read[i]) == dequantize(w)) << G::bits << " bits, groups of " << w.tile.cols;
        EXPECT_EQ(read[i].bits, G::bits);
        EXPECT_EQ(read[i].tile, w.tile);
        EXPECT_EQ(read[i].map.empty(), w.map.empty() || w.tile.cols == w.shape().cols);
    }
}

TEST(add_gptq, what_it_writes_is_read_back) {
    expect_gptq_round_trip(int_grid<2>{});
    expect_gptq_round_trip(int_grid<3>{});
    expect_gptq_round_trip(int_grid<4>{});
    expect_gptq_round_trip(int_grid<8>{});
    expect_gptq_round_trip(int_grid<2, zero::none>{});
    expect_gptq_round_trip(int_grid<3, zero::none>{});
    expect_gptq_round_trip(int_grid<4, zero::none>{});
    expect_gptq_round_trip(int_grid<8, zero::none>{});
}

template <Grid G> void expect_gptq_layout(G const& grid, unsigned offset) {
    index_t const out = 32;
    index_t const in = 96;
    index_t const width = 40;
    packed_matrix const w = random_packed(grid, {out, in}, {1, width}, true);
    temporary_directory const directory;
    safetensors_writer writer;
    io::add_gptq(writer, "a.b", w);
    writer.save(directory / "model.safetensors");
    checkpoint const file(directory / "model.safetensors");
    EXPECT_EQ(file.names(), (std::vector<std::string>{"a.b.g_idx", "a.b.qweight", "a.b.qzeros", "a.b.scales"}));
    EXPECT_EQ(file.at("a.b.qweight").type, dtype::i32);
    EXPECT_EQ(file.at("a.b.qweight").shape, (std::vector<index_t>{in * G::bits / 32, out}));
    EXPECT_EQ(file.at("a.b.qzeros").type, dtype::i32);
    EXPECT_EQ(file.at("a.b.qzeros").shape, (std::vector<index_t>{3, out * G::bits / 32}));
    EXPECT_EQ(file.at("a.b.scales").type, dtype::f16);
    EXPECT_EQ(file.at("a.b.scales").shape, (std::vector<index_t>{3, out}));
    EXPECT_EQ(file.at("a.b.g_idx").type, dtype::i32);
    EXPECT_EQ(file.at("a.b.g_idx").shape, (std::vector<index_t>{in}));
    auto const weights = elements<std::uint32_t>(file, "a.b.qweight");
    auto const zeros = elements<std::uint32_t>(file, "a.b.qzeros");
    auto const scales = elements<half>(file, "a.b.scales");
    auto const group_of = elements<std::int32_t>(file, "a.b.g_idx");
    for (index_t k = 0; k < in; ++k) {
        index_t const input = (*w.map.order())[static_cast<std::size_t>(k)];
        index_t const group = k / width;
        ASSERT_EQ(group_of[static_cast<std::size_t>(input)], group);
        for (index_t row = 0; row < out; ++row) {
            ASSERT_EQ(field(weights, row, out, input, G::bits), w.code_at(row, k)) << row << ' ' << k;
            tile_scale const s = w.scales.at(row, group);
            ASSERT_EQ(field(zeros, group * (out * G::bits / 32), 1, row, G::bits),
                      static_cast<unsigned>(s.zero) + offset);
            ASSERT_EQ(static_cast<float>(scales[static_cast<std::size_t>(group * out + row)]), s.scale);
        }
    }
}

TEST(add_gptq, writes_the_layout_of_gptqmodel) {
    expect_gptq_layout(int_grid<2>{}, 0);
    expect_gptq_layout(int_grid<3>{}, 0);
    expect_gptq_layout(int_grid<4>{}, 0);
    expect_gptq_layout(int_grid<8>{}, 0);
    expect_gptq_layout(int_grid<3, zero::none>{}, 4);
    expect_gptq_layout(int_grid<4, zero::none>{}, 8);
}

TEST(gptq_obstacle, says_what_the_layout_cannot_hold) {
    auto const obstacle = [](auto const& grid, extents shape, extents tile) {
        return io::gptq_obstacle(random_packed(grid, shape, tile));
    };
    EXPECT_EQ(obstacle(int_grid<5>{}, {32, 32}, {1, 32}), "it stores 2, 3, 4 or 8 bits, not 5");
    EXPECT_EQ(obstacle(e2m1{}, {32, 32}, {1, 32}), "its grids are integers");
    EXPECT_EQ(obstacle(ternary{}, {32, 32}, {1, 32}), "its grids are integers");
    EXPECT_EQ(obstacle(test::powers_of_two{}, {32, 32}, {1, 32}), "its grids are integers");
    EXPECT_EQ(obstacle(codebook_grid<half_integers>{}, {32, 32}, {1, 32}), "its grids are integers");
    EXPECT_EQ(obstacle(codebook_grid<far_integers>{}, {32, 32}, {1, 32}), "its grids are integers");
    EXPECT_EQ(obstacle(int_grid<4>{}, {32, 32}, {2, 32}), "each of its rows has its own scales");
    EXPECT_EQ(obstacle(int_grid<4>{}, {32, 40}, {1, 40}), "a weight of shape (32, 40) does not fill its words");
    EXPECT_EQ(obstacle(int_grid<3>{}, {16, 32}, {1, 32}), "a weight of shape (16, 32) does not fill its words");
    packed_matrix w = random_packed(int_grid<4>{}, {32, 32}, {1, 32});
    w.scales.format = float_format::f32;
    EXPECT_EQ(io::gptq_obstacle(w), "its scales are f16");
    w.scales.format = scale_kind::e8m0;
    EXPECT_EQ(io::gptq_obstacle(w), "its scales are f16");
    EXPECT_EQ(io::gptq_obstacle(random_weak(int_grid<4>{}, {32, 32}, {1, 32}, 2, float_format::f16)),
              "it has no weak columns");
    for (std::string const kind : test::kinds_of_maps) {
        packed_matrix mapped = random_packed(int_grid<4>{}, {32, 32}, {1, 32});
        mapped.map = test::random_map(kind, 32, 16);
        EXPECT_EQ(io::gptq_obstacle(mapped),
                  kind.empty() || kind == "p" ? "" : "its inputs are only put in another order")
            << kind;
        EXPECT_EQ(io::owq_obstacle(mapped), kind.empty() ? "" : "its inputs are as they come") << kind;
    }
}

TEST(packed_reader, version_one_stores_zero_points_minus_one) {
    packed_matrix w = random_packed(int_grid<4>{}, {32, 64}, {1, 32});
    for (float& z : w.scales.zeros) {
        z = std::max(z, 1.0F);
    }
    packed_matrix minus_one = w;
    for (float& z : minus_one.scales.zeros) {
        z -= 1;
    }
    tensors const all = tensors_of(add_gptq_v2, minus_one);
    EXPECT_TRUE(read(all, w.shape(), gptq_v1()) == w);
    EXPECT_TRUE(read(all, w.shape(), gptq_v2()) == minus_one);
}

TEST(packed_reader, negative_groups_count_from_the_end) {
    packed_matrix const w = random_packed(int_grid<4>{}, {32, 64}, {1, 16}, true);
    tensors all = tensors_of(add_gptq_v2, w);
    for (std::size_t i = 0; i < 64; i += 3) {
        std::int32_t group = 0;
        std::memcpy(&group, all["layer.g_idx"].bytes.data() + 4 * i, 4);
        all["layer.g_idx"].set(i, group - 4);
    }
    EXPECT_TRUE(dequantize(read(all, w.shape())) == dequantize(w));
}

TEST(packed_reader, nonsense_in_gptqs_layout_is_refused) {
    extents const shape{32, 64};
    tensors const good = tensors_of(add_gptq_v2, random_packed(int_grid<4>{}, shape, {1, 16}));
    auto const refused = [&](std::string const& name, std::string const& problem,
                             std::function<void(tensors&)> const& change) {
        expect_refused(good, shape, name, problem, change);
    };
    auto const nothing = std::vector<std::uint8_t>{};
    refused("scales", "", [](tensors& t) { t.erase("layer.scales"); });
    refused("qzeros", "", [](tensors& t) { t.erase("layer.qzeros"); });
    refused("qweight", "does not hold weights of shape (32, 64)", [&](tensors& t) {
        t["layer.qweight"] = {dtype::i32, {}, {0, 0, 0, 0}};
    });
    refused("qweight", "does not hold weights of shape (32, 64)", [&](tensors& t) {
        t["layer.qweight"] = {dtype::i32, {0, 32}, nothing};
    });
    refused("qweight", "does not hold weights of shape (32, 64)", [&](tensors& t) {
        t["layer.qweight"] = {dtype::i32, {7, 32}, std::vector<std::uint8_t>(7 * 32 * 4)};
    });
    refused("qweight", "must have the shape (8, 32)", [&](tensors& t) { t["layer.qweight"].shape = {8, 16, 2}; });
    refused("qweight", "has type F32", [](tensors& t) { t["layer.qweight"].type = dtype::f32; });
    refused("qzeros", "must have the shape (4, 4)", [](tensors& t) { t["layer.qzeros"].shape = {2, 8}; });
    refused("scales", "must have the shape (4, 32)", [](tensors& t) { t["layer.scales"].shape = {4, 16, 2}; });
    refused("scales", "", [](tensors& t) { t["layer.scales"].type = dtype::i16; });
    refused("scales", "not finite", [](tensors& t) { t["layer.scales"].set(5, std::uint16_t{0x7E00}); });
    refused("scales", "not finite", [](tensors& t) { t["layer.scales"].set(5, std::uint16_t{0xFC00}); });
    refused("g_idx", "must have the shape (64)", [](tensors& t) { t["layer.g_idx"].shape = {8, 8}; });
    for (std::int32_t const group :
         {-5, 4, 1000, std::numeric_limits<std::int32_t>::max(), std::numeric_limits<std::int32_t>::min()}) {
        refused("g_idx", "its groups are not all of the same width",
                [&](tensors& t) { t["layer.g_idx"].set(10, group); });
    }
    refused("g_idx", "its groups are not all of the same width", [](tensors& t) {
        t["layer.g_idx"].set(10, std::int32_t{1}); // 15 and 17 inputs
    });
    refused("scales", "has 4 groups, g_idx names 2", [](tensors& t) {
        for (std::size_t i = 0; i < 64; ++i) {
            t["layer.g_idx"].set(i, static_cast<std::int32_t>(i / 32));
        }
    });
}

/// Reads layer "layer" of GPTQ's settings with one more field.
packed_matrix read_with(tensors const& all, extents shape, std::string const& field, nlohmann::json const& value) {
    nlohmann::json settings = gptq_v2();
    settings[field] = value;
    return read(all, shape, settings);
}

TEST(read_gptq, groups_are_consecutive_where_no_index_is) {
    for (index_t const width : {16, 64}) {
        packed_matrix const w = random_packed(int_grid<4>{}, {32, 64}, {1, width});
        tensors all = tensors_of(add_gptq_v2, w);
        all.erase("layer.g_idx");
        EXPECT_TRUE(dequantize(read_with(all, w.shape(), "group_size", width == 64 ? -1 : width)) == dequantize(w));
        EXPECT_TRUE(dequantize(read(all, w.shape())) == dequantize(w)) << "the scales say how many";
        std::string const message = failure_message([&] { read_with(all, w.shape(), "group_size", 32); });
        EXPECT_TRUE(contains(message, "inputs in groups of 32 are 2")) << message;
    }
}

TEST(read_gptq, scales_may_be_bfloat16) {
    packed_matrix w = random_packed(int_grid<4>{}, {32, 64}, {1, 16});
    tensors all = tensors_of(add_gptq_v2, w);
    std::vector<bfloat16> scales;
    for (index_t g = 0; g < 4; ++g) {
        for (index_t r = 0; r < 32; ++r) {
            scales.push_back(static_cast<bfloat16>(w.scales.at(r, g).scale));
        }
    }
    all["layer.scales"] = tensor::of(dtype::bf16, {4, 32}, scales);
    auto const back = read(all, w.shape());
    EXPECT_EQ(back.scales.format, scale_format(float_format::bf16));
    EXPECT_EQ(back.scales.at(3, 2).scale, static_cast<float>(scales[2 * 32 + 3]));
}

TEST(gptq_reader, dynamic_settings_hold_for_the_layers_that_they_name) {
    packed_matrix const w = random_packed(int_grid<8>{}, {32, 64}, {1, 16});
    tensors all = tensors_of(add_gptq_v2, w);
    all.erase("layer.g_idx");
    nlohmann::json settings = gptq_v2();
    settings["bits"] = 4;
    settings["group_size"] = 32;
    auto const problem = [&](nlohmann::json const& dynamic) {
        settings["dynamic"] = dynamic;
        return failure_message([&] { read(all, w.shape(), settings); });
    };
    EXPECT_EQ(problem({{"+:lay.*", {{"bits", 8}, {"group_size", 16}}}}), "");
    EXPECT_EQ(problem({{"lay", {{"bits", 8}, {"group_size", 16}}}, {"layer", {{"bits", 2}}}}), "")
        << "the first counts";
    EXPECT_EQ(problem({{"-:other", nlohmann::json::object()}, {"lay", {{"bits", 8}, {"group_size", 16}}}}), "");
    EXPECT_TRUE(contains(problem({{"ayer", {{"bits", 8}, {"group_size", 16}}}}), "inputs in groups of 32"));
    EXPECT_TRUE(contains(problem({{"layer", {{"group_size", 16}}}}), "has codes of 8 bits, but the settings say 4"));
    EXPECT_TRUE(contains(problem({{"(layer", {{"bits", 8}}}}), "config.json, field 'dynamic.(layer'"));
}

TEST(gptq_reader, impossible_settings_are_refused_by_the_field) {
    packed_matrix const w = random_packed(int_grid<4>{}, {32, 64}, {1, 16});
    tensors const all = tensors_of(add_gptq_v2, w);
    auto const refused = [&](std::string const& field, nlohmann::json const& value, std::string const& problem) {
        std::string const message = failure_message([&] { read_with(all, w.shape(), field, value); });
        EXPECT_TRUE(contains(message, "field '" + field + "'")) << message;
        EXPECT_TRUE(contains(message, problem)) << message;
    };
    refused("checkpoint_format", "marlin", "is 'marlin'; only 'gptq' and 'gptq_v2' are read");
    refused("checkpoint_format", 2, "is not a text");
    refused("pack_dtype", "int8", "only 'int32' is read");
    refused("bits", 16, "codes have 1 to 8 bits");
    refused("bits", "four", "is not an integer");
    refused("group_size", 0, "groups are -1, for whole rows");
    refused("is_marlin_format", true, "not read");
    EXPECT_TRUE(contains(failure_message([&] { read_with(all, w.shape(), "bits", 8); }),
                         "has codes of 4 bits, but the settings say 8"));
}

TEST(gptq_layout, is_version_one_where_every_reader_agrees) {
    packed_matrix w = random_packed(int_grid<4>{}, {32, 64}, {1, 16});
    std::ranges::replace(w.scales.zeros, 0.0F, 1.0F);
    packed_matrix const symmetric = random_packed(int_grid<4, zero::none>{}, {32, 64}, {1, 16}, true);
    auto const settings_of = [](packed_matrix const& m, packed_matrix const* other = nullptr) {
        std::vector<io::layer_to_save> layers{
            {"layer", &m}, {"a.float", nullptr}, {"lm_head", nullptr, nullptr, false}};
        if (other != nullptr) {
            layers.push_back({"other", other});
        }
        return io::gptq_layout().settings(layers);
    };
    EXPECT_EQ(settings_of(w).at("checkpoint_format"), "gptq");
    EXPECT_EQ(settings_of(symmetric).at("checkpoint_format"), "gptq");
    EXPECT_EQ(settings_of(symmetric).at("sym"), true);
    EXPECT_EQ(settings_of(symmetric).at("desc_act"), true);
    EXPECT_EQ(settings_of(w, &symmetric).at("desc_act"), true) << "where any layer needs it";
    EXPECT_EQ(settings_of(w, &symmetric).at("sym"), false);
    EXPECT_EQ(settings_of(w).at("dynamic"), (nlohmann::json{{"-:a\\.float$", nlohmann::json::object()}}));
    auto const written = [&](packed_matrix const& m) {
        return tensors_of(
            [&](safetensors_writer& file, std::string const& name, packed_matrix const& x) {
                io::gptq_layout().add(file, {name, &x}, settings_of(m));
            },
            m);
    };
    EXPECT_TRUE(read(written(w), w.shape(), settings_of(w)) == w);
    EXPECT_TRUE(dequantize(read(written(symmetric), w.shape(), settings_of(symmetric))) == dequantize(symmetric));
    std::uint32_t word = 0;
    std::memcpy(&word, written(symmetric).at("layer.qzeros").bytes.data(), 4);
    EXPECT_EQ(word, 0x77777777U);
    w.scales.zeros[5] = 0;
    EXPECT_EQ(settings_of(w).at("checkpoint_format"), "gptq_v2");
    EXPECT_TRUE(read(written(w), w.shape(), settings_of(w)) == w);
}

} // namespace
} // namespace detent::test

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <gtest/gtest.h>

#include "detent/io/layout_owq.hpp"
#include "io/layout_support.hpp"

namespace detent::test {
namespace {

template <Grid G> void expect_owq_round_trip(G const& grid) {
    std::vector<packed_matrix> matrices;
    for (extents const shape : {extents{2, 32}, {6, 160}, {34, 96}}) {
        for (index_t const count : {0, 1, 2, 7, 32}) {
            for (float_format const format : test::all_formats) {
                matrices.push_back(random_weak(grid, shape, {1, shape.cols}, count, format));
                matrices.back().scales.format = format; // the scales are exact in each
                ASSERT_EQ(io::owq_obstacle(matrices.back()), "");
            }
        }
    }
    temporary_directory const directory;
    safetensors_writer writer;
    for (std::size_t i = 0; i < matrices.size(); ++i) {
        io::add_owq(writer, "layer" + std::to_string(i), matrices[i]);
    }
    writer.save(directory / "model.safetensors");
    checkpoint const file(directory / "model.safetensors");
    for (nlohmann::json const& layout : {owq_settings(), gptq_v2()}) { // the names say enough
        packed_reader const reader = reader_of(file, layout);
        for (std::size_t i = 0; i < matrices.size(); ++i) {
            packed_matrix const& w = matrices[i];
            std::string const name = "layer" + std::to_string(i);
            ASSERT_TRUE(reader.contains(name));
            packed_matrix const read = reader.read(name, w.shape());
            ASSERT_TRUE(dequantize(read) == dequantize(w)) << G::bits << " bits, matrix " << i;
            EXPECT_EQ(read.weak, w.weak) << i;
            EXPECT_EQ(read.codes, w.codes) << i;
            EXPECT_EQ(read.scales.format, w.scales.format) << i;
            EXPECT_EQ(read.tile, w.tile) << i;
        }
    }
}

TEST(add_owq, what_it_writes_is_read_back) {
    expect_owq_round_trip(int_grid<3>{});
    expect_owq_round_trip(int_grid<4>{});
    expect_owq_round_trip(int_grid<3, zero::none>{});
    expect_owq_round_trip(int_grid<4, zero::none>{});
}

template <Grid G> void expect_owq_layout(G const& grid, unsigned offset) {
    index_t const out = 6;
    index_t const in = 96;
    packed_matrix const w = random_weak(grid, {out, in}, {1, in}, 4, float_format::bf16);
    temporary_directory const directory;
    safetensors_writer writer;
    io::add_owq(writer, "a.b", w);
    writer.save(directory / "model.safetensors");
    checkpoint const file(directory / "model.safetensors");
    EXPECT_EQ(file.names(),
              (std::vector<std::string>{"a.b.outlieridx", "a.b.oweight", "a.b.qweight", "a.b.scales", "a.b.zeros"}));
    EXPECT_EQ(file.at("a.b.qweight").type, dtype::i32);
    EXPECT_EQ(file.at("a.b.qweight").shape, (std::vector<index_t>{in * G::bits / 32, out}));
    EXPECT_EQ(file.at("a.b.scales").type, dtype::f16);
    EXPECT_EQ(file.at("a.b.scales").shape, (std::vector<index_t>{out, 1}));
    EXPECT_EQ(file.at("a.b.zeros").type, dtype::u8);
    EXPECT_EQ(file.at("a.b.zeros").shape, (std::vector<index_t>{out / 2, 1}));
    EXPECT_EQ(file.at("a.b.oweight").type, dtype::bf16);
    EXPECT_EQ(file.at("a.b.oweight").shape, (std::vector<index_t>{4, out}));
    EXPECT_EQ(file.at("a.b.outlieridx").type, dtype::i32);
    EXPECT_EQ(file.at("a.b.outlieridx").shape, (std::vector<index_t>{4}));
    auto const codes = elements<std::uint32_t>(file, "a.b.qweight");
    auto const zeros = elements<std::uint8_t>(file, "a.b.zeros");
    auto const scales = elements<half>(file, "a.b.scales");
    auto const weak = elements<bfloat16>(file, "a.b.oweight");
    EXPECT_EQ(elements<std::int32_t>(file, "a.b.outlieridx"), w.weak.columns());
    for (index_t row = 0; row < out; ++row) {
        tile_scale const s = w.scales.at(row, 0);
        unsigned const byte = zeros[static_cast<std::size_t>(row / 2)];
        EXPECT_EQ(row % 2 == 0 ? byte % 16 : byte / 16, static_cast<unsigned>(s.zero) + offset);
        EXPECT_EQ(static_cast<float>(scales[static_cast<std::size_t>(row)]), s.scale);
        for (index_t k = 0; k < in; ++k) {
            ASSERT_EQ(field(codes, row, out, k, G::bits), w.code_at(row, k)) << row << ' ' << k;
        }
        for (index_t k = 0; k < 4; ++k) {
            EXPECT_EQ(static_cast<float>(weak[static_cast<std::size_t>(k * out + row)]), w.weak.at(k, row));
            EXPECT_EQ(field(codes, row, out, w.weak.columns()[static_cast<std::size_t>(k)], G::bits),
                      static_cast<unsigned>(s.zero) + offset)
                << "codes of weak columns stand for 0";
        }
    }
}

TEST(add_owq, writes_the_layout_of_owq) {
    expect_owq_layout(int_grid<3>{}, 0);
    expect_owq_layout(int_grid<4>{}, 0);
    expect_owq_layout(int_grid<3, zero::none>{}, 4);
    expect_owq_layout(int_grid<4, zero::none>{}, 8);
}

TEST(owq_obstacle, says_what_the_layout_cannot_hold) {
    auto const obstacle = [](auto const& grid, extents shape, extents tile, bool reordered = false) {
        return io::owq_obstacle(random_packed(grid, shape, tile, reordered));
    };
    EXPECT_EQ(obstacle(int_grid<4>{}, {6, 32}, {1, 32}), "");
    EXPECT_EQ(obstacle(int_grid<2>{}, {6, 32}, {1, 32}), "it stores 3 or 4 bits, not 2");
    EXPECT_EQ(obstacle(e2m1{}, {6, 32}, {1, 32}), "its grids are integers");
    EXPECT_EQ(obstacle(int_grid<4>{}, {6, 32}, {2, 32}), "each of its rows has its own scales");
    EXPECT_EQ(obstacle(int_grid<4>{}, {6, 32}, {1, 16}), "its scales are of whole rows");
    EXPECT_EQ(obstacle(int_grid<4>{}, {6, 32}, {1, 32}, true), "its inputs are as they come");
    EXPECT_EQ(obstacle(int_grid<4>{}, {6, 40}, {1, 40}), "a weight of shape (6, 40) does not fill its words");
    EXPECT_EQ(obstacle(int_grid<3>{}, {5, 32}, {1, 32}), "a weight of shape (5, 32) does not fill its words");
    packed_matrix w = random_packed(int_grid<4>{}, {6, 32}, {1, 32});
    for (scale_kind const kind : {scale_kind::e8m0, scale_kind::ue4m3}) {
        w.scales.format = kind;
        EXPECT_EQ(io::owq_obstacle(w), "its scales are f16, bf16 or f32");
    }
}

TEST(packed_reader, nonsense_in_owqs_layout_is_refused) {
    extents const shape{6, 64};
    tensors const good = tensors_of(io::add_owq, random_weak(int_grid<3>{}, shape, {1, 64}, 4, float_format::f16));
    expect_bad_weak_columns_refused(good, shape, "outlieridx", "oweight", "qweight");
    auto const refused = [&](std::string const& name, std::string const& problem,
                             std::function<void(tensors&)> const& change) {
        expect_refused(good, shape, name, problem, change);
    };
    refused("scales", "is missing", [](tensors& t) { t.erase("layer.scales"); });
    refused("zeros", "is missing", [](tensors& t) { t.erase("layer.zeros"); });
    refused("scales", "must have the shape (6, 1)", [](tensors& t) { t["layer.scales"].shape = {1, 6}; });
    refused("scales", "not finite", [](tensors& t) { t["layer.scales"].set(5, std::uint16_t{0x7E00}); });
    refused("zeros", "must have the shape (3, 1)", [](tensors& t) { t["layer.zeros"].shape = {1, 3}; });
    refused("zeros", "holds a zero point that is no code", [](tensors& t) { t["layer.zeros"].bytes[1] |= 0x80; });
    refused("zeros", "holds a zero point that is no code", [](tensors& t) { t["layer.zeros"].bytes[1] |= 0x08; });
    refused("qweight", "has type F32", [](tensors& t) { t["layer.qweight"].type = dtype::f32; });
    refused("qweight", "does not hold weights of shape (6, 64)", [](tensors& t) {
        t["layer.qweight"] = {dtype::i32, {4, 6}, std::vector<std::uint8_t>(4 * 6 * 4)}; // 2 bits
    });
    refused("qweight", "must have the shape (6, 6)", [](tensors& t) { t["layer.qweight"].shape = {6, 2, 3}; });
    std::string const odd = failure_message([&] { read(good, {5, 64}); });
    EXPECT_TRUE(contains(odd, "does not hold weights of shape (5, 64)")) << odd;
    std::string const huge = failure_message([&] { read(good, {index_t{1} << 40, 64}); });
    EXPECT_TRUE(contains(huge, "'layer.qweight'")) << huge;
    // Without positions a layer is OWQ's because the configuration says so; it then cannot have numbers either.
    tensors without = good;
    without.erase("layer.outlieridx");
    std::string const missing = failure_message([&] { read(without, shape, owq_settings()); });
    EXPECT_TRUE(contains(missing, "'layer.outlieridx'")) << missing;
    without.erase("layer.oweight");
    EXPECT_TRUE(read(without, shape, owq_settings()).weak.empty());
}

TEST(packed_reader, takes_owqs_older_shapes) {
    for (float_format const format : test::all_formats) {
        packed_matrix const w = random_weak(int_grid<4>{}, {6, 64}, {1, 64}, 4, format);
        tensors all = tensors_of(io::add_owq, w);
        packed_matrix const expected = read(all, w.shape());
        all["layer.scales"].shape = {6};
        all["layer.zeros"].shape = {3};
        tensor& weak = all["layer.oweight"];
        auto const bytes = weak.bytes;
        auto const size = static_cast<std::size_t>(bits_of(format) / 8);
        for (std::size_t k = 0; k < 4; ++k) {
            for (std::size_t row = 0; row < 6; ++row) {
                std::memcpy(weak.bytes.data() + (row * 4 + k) * size, bytes.data() + (k * 6 + row) * size, size);
            }
        }
        weak.shape = {6, 4};
        EXPECT_TRUE(read(all, w.shape()) == expected);
    }
    // As many weak columns as outputs, and more: the usual shape is not taken for the old one.
    for (index_t const count : {6, 9}) {
        packed_matrix const w = random_weak(int_grid<4>{}, {6, 64}, {1, 64}, count, float_format::f16);
        EXPECT_EQ(read(tensors_of(io::add_owq, w), w.shape()).weak, w.weak);
    }
}

} // namespace
} // namespace detent::test

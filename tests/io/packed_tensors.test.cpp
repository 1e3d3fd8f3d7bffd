// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <array>
#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <optional>
#include <random>

#include <gtest/gtest.h>

#include "detent/grid/codebook_grid.hpp"
#include "detent/grid/fp_grid.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/io/packed_tensors.hpp"
#include "detent/matrix/dequantize.hpp"
#include "grid/own_grid.hpp"
#include "io/failure_message.hpp"
#include "io/temporary_directory.hpp"
#include "matrix/random_map.hpp"
#include "matrix/random_solution.hpp"
#include "matrix/random_weak.hpp"

namespace {

using namespace detent;
using io::checkpoint;
using io::dtype;
using io::packed_layout;
using io::packed_reader;
using io::safetensors_writer;

template <Grid G> packed_matrix random_packed(G const& grid, extents shape, extents tile, bool reordered = false) {
    solution s = test::random_solution(grid, shape, tile, 1);
    if (reordered) {
        s.map = input_map(permutation{test::random_order(shape.cols, 2)}, shape.cols);
    }
    return pack(s);
}

/// The same with weak columns.
template <Grid G>
packed_matrix random_weak(G const& grid, extents shape, extents tile, index_t count, float_format format,
                          bool reordered = false) {
    solution s = test::random_solution(grid, shape, tile, 1);
    test::weaken(s, grid, test::random_columns(shape.cols, count, 3), format);
    if (reordered) {
        s.map = input_map(permutation{test::random_order(shape.cols, 2)}, shape.cols);
    }
    return pack(s);
}

using add_function = void (*)(safetensors_writer&, std::string const&, packed_matrix const&);

/// Writes the matrices with `add` to one file and reads them back.
std::vector<packed_matrix> written_and_read(add_function add, std::vector<packed_matrix> const& matrices) {
    temporary_directory const directory;
    safetensors_writer writer;
    for (std::size_t i = 0; i < matrices.size(); ++i) {
        add(writer, "layer" + std::to_string(i), matrices[i]);
    }
    writer.save(directory / "model.safetensors");
    checkpoint const file(directory / "model.safetensors");
    packed_reader const reader(file);
    EXPECT_FALSE(reader.contains("layer"));
    std::vector<packed_matrix> read;
    for (std::size_t i = 0; i < matrices.size(); ++i) {
        std::string const name = "layer" + std::to_string(i);
        EXPECT_TRUE(reader.contains(name));
        read.push_back(reader.read(name, matrices[i].shape()));
    }
    return read;
}

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
    auto const read = written_and_read(io::add_gptq, matrices);
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

/// The elements of a tensor.
template <class T> std::vector<T> elements(checkpoint const& file, std::string const& name) {
    auto const bytes = file.at(name).bytes;
    std::vector<T> values(bytes.size() / sizeof(T));
    std::memcpy(values.data(), bytes.data(), bytes.size());
    return values;
}

/// `bits` bits from `position` on of the words, which lie `stride` apart.
unsigned field(std::vector<std::uint32_t> const& words, index_t first, index_t stride, index_t position, int bits) {
    unsigned value = 0;
    for (int b = 0; b < bits; ++b) {
        index_t const bit = position * bits + b;
        value |= (words[static_cast<std::size_t>(first + bit / 32 * stride)] >> (bit % 32) & 1U) << b;
    }
    return value;
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

struct half_integers {
    static constexpr std::array<float, 4> values{-1.5F, -0.5F, 0.5F, 1.5F};
};
struct far_integers {
    static constexpr std::array<float, 4> values{-20.0F, -19.0F, -18.0F, -17.0F};
};

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
    for (packed_layout const layout : {packed_layout::owq, packed_layout::gptq_v2}) { // the names say enough
        packed_reader const reader(file, layout);
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

template <Grid G> void expect_own_round_trip(G const& grid) {
    std::vector<packed_matrix> matrices;
    for (extents const shape : {extents{1, 1}, {5, 37}, {32, 64}}) {
        extents const block{std::min<index_t>(3, shape.rows), std::min<index_t>(10, shape.cols)};
        for (extents const tile : {extents{1, shape.cols}, shape, extents{1, 1}, block}) {
            for (bool const reordered : {false, true}) {
                packed_matrix w = random_packed(grid, shape, tile, reordered);
                matrices.push_back(w);
                w.scales.format = float_format::f32;
                w.scales.scales[0] = 0.1F; // no f16
                matrices.push_back(w);
                w.scales.format = float_format::bf16;
                w.scales.scales[0] = 0x1.02p100F;
                matrices.push_back(w);
            }
        }
    }
    auto const read = written_and_read(io::add_packed, matrices);
    for (std::size_t i = 0; i < matrices.size(); ++i) {
        EXPECT_TRUE(read[i] == matrices[i]) << i;
    }
}

TEST(add_packed, weak_columns_are_read_back) {
    std::vector<packed_matrix> matrices;
    for (extents const shape : {extents{1, 1}, {5, 37}, {32, 64}}) {
        for (extents const tile : {extents{1, shape.cols}, shape, extents{1, 1}}) {
            for (bool const reordered : {false, true}) {
                for (float_format const format : test::all_formats) {
                    for (index_t const count : {index_t{1}, index_t{3}, shape.cols}) {
                        matrices.push_back(random_weak(int_grid<3>{}, shape, tile, count, format, reordered));
                        matrices.push_back(random_weak(e2m1{}, shape, tile, count, format, reordered));
                        matrices.push_back(random_weak(ternary{}, shape, tile, count, format, reordered));
                    }
                }
            }
        }
    }
    auto const read = written_and_read(io::add_packed, matrices);
    for (std::size_t i = 0; i < matrices.size(); ++i) {
        EXPECT_TRUE(read[i] == matrices[i]) << i;
    }
}

TEST(add_packed, without_weak_columns_writes_no_tensors_for_them) {
    packed_matrix const w = random_packed(int_grid<3>{}, {5, 37}, {1, 37});
    temporary_directory const directory;
    safetensors_writer writer;
    io::add_packed(writer, "a", w);
    writer.save(directory / "model.safetensors");
    EXPECT_EQ(checkpoint(directory / "model.safetensors").names(),
              (std::vector<std::string>{"a.codes", "a.scales", "a.table", "a.tile", "a.zeros"}));
}

TEST(add_packed, what_it_writes_is_read_back) {
    expect_own_round_trip(int_grid<1>{});
    expect_own_round_trip(int_grid<3>{});
    expect_own_round_trip(int_grid<8>{});
    expect_own_round_trip(int_grid<5, zero::none>{});
    expect_own_round_trip(e2m1{});
    expect_own_round_trip(e4m3{});
    expect_own_round_trip(e5m2{});
    expect_own_round_trip(codebook_grid<half_integers>{});
    expect_own_round_trip(nf4{});
    expect_own_round_trip(ternary{});
    expect_own_round_trip(test::powers_of_two{});
}

/// With every scale of 8 bits in turn.
template <Grid G> packed_matrix bytes_packed(G const& grid, scale_format format) {
    packed_matrix w = random_packed(grid, {16, 80}, {1, 5});
    w.scales.format = format;
    unsigned next = 0;
    for (float& s : w.scales.scales) {
        do {
            s = scale_of(format, static_cast<std::uint8_t>(next++ % 256));
        } while (std::isnan(s));
    }
    return w;
}

TEST(add_packed, scales_of_8_bits_are_read_back) {
    std::vector<packed_matrix> matrices;
    for (scale_format const format : {scale_format(scale_kind::e8m0), scale_format(scale_kind::ue4m3, 1.0F / 2688),
                                      scale_format(scale_kind::ue4m3, 0.3F), scale_format(scale_kind::ue4m3),
                                      scale_format(scale_kind::ue4m3, unit_limits::lowest),
                                      scale_format(scale_kind::ue4m3, unit_limits::highest)}) {
        matrices.push_back(bytes_packed(e2m1{}, format));
        matrices.push_back(bytes_packed(int_grid<3>{}, format));
    }
    auto const read = written_and_read(io::add_packed, matrices);
    for (std::size_t i = 0; i < matrices.size(); ++i) {
        EXPECT_TRUE(read[i] == matrices[i]) << i;
    }
}

TEST(add_packed, scales_of_8_bits_have_types_of_their_own) {
    temporary_directory const directory;
    safetensors_writer writer;
    packed_matrix const mx = bytes_packed(e2m1{}, scale_kind::e8m0);
    packed_matrix const nv = bytes_packed(e2m1{}, {scale_kind::ue4m3, 0.3F});
    io::add_packed(writer, "mx", mx);
    io::add_packed(writer, "nv", nv);
    writer.save(directory / "model.safetensors");
    checkpoint const file(directory / "model.safetensors");
    EXPECT_EQ(file.names(), (std::vector<std::string>{"mx.codes", "mx.scales", "mx.table", "mx.tile", "nv.codes",
                                                      "nv.scale_unit", "nv.scales", "nv.table", "nv.tile"}));
    EXPECT_EQ(file.at("mx.scales").type, dtype::f8_e8m0);
    EXPECT_EQ(file.at("mx.scales").shape, (std::vector<index_t>{16, 16}));
    EXPECT_EQ(file.at("nv.scales").type, dtype::f8_e4m3);
    EXPECT_EQ(elements<float>(file, "nv.scale_unit"), std::vector<float>{0.3F});
    auto const powers = elements<std::uint8_t>(file, "mx.scales");
    auto const numbers = elements<std::uint8_t>(file, "nv.scales");
    for (std::size_t i = 0; i < powers.size(); ++i) {
        EXPECT_EQ(mx.scales.scales[i], std::ldexp(1.0F, powers[i] - 127));
        EXPECT_EQ(nv.scales.scales[i], e4m3::decode(numbers[i]) * 0.3F);
    }
}

/// The tensors of a checkpoint, to be changed before they are written.
struct tensor {
    dtype type;
    std::vector<index_t> shape;
    std::vector<std::uint8_t> bytes;

    template <class T> static tensor of(dtype type, std::vector<index_t> shape, std::vector<T> const& values) {
        return {type, std::move(shape), io::bytes_of(values)};
    }
    template <class T> void set(std::size_t i, T value) {
        std::memcpy(bytes.data() + i * sizeof(T), &value, sizeof(T));
    }
};
using tensors = std::map<std::string, tensor>;

/// The tensors of layer "layer" as `add` writes them.
tensors tensors_of(add_function add, packed_matrix const& w) {
    temporary_directory const directory;
    safetensors_writer writer;
    add(writer, "layer", w);
    writer.save(directory / "model.safetensors");
    checkpoint const file(directory / "model.safetensors");
    tensors all;
    for (std::string const& name : file.names()) {
        auto const& t = file.at(name);
        all[name] = {t.type, t.shape, {t.bytes.begin(), t.bytes.end()}};
    }
    return all;
}

packed_matrix read(tensors const& all, extents shape, packed_layout layout = packed_layout::gptq_v2) {
    temporary_directory const directory;
    safetensors_writer writer;
    for (auto const& [name, t] : all) {
        writer.add(name, t.type, t.shape, t.bytes);
    }
    writer.save(directory / "model.safetensors");
    checkpoint const file(directory / "model.safetensors");
    return packed_reader(file, layout).read("layer", shape);
}

/// After `change`, reading fails with a message that names the tensor and contains `problem`.
void expect_refused(tensors all, extents shape, std::string const& name, std::string const& problem,
                    std::function<void(tensors&)> const& change) {
    ASSERT_EQ(failure_message([&] { read(all, shape); }), "");
    change(all);
    std::string const message = failure_message([&] { read(all, shape); });
    EXPECT_TRUE(contains(message, "'layer." + name + "'")) << name << ": " << message;
    EXPECT_TRUE(contains(message, problem)) << name << ": " << message;
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
    tensors const all = tensors_of(io::add_gptq, minus_one);
    EXPECT_TRUE(read(all, w.shape(), packed_layout::gptq_v1) == w);
    EXPECT_TRUE(read(all, w.shape(), packed_layout::gptq_v2) == minus_one);
}

TEST(packed_reader, negative_groups_count_from_the_end) {
    packed_matrix const w = random_packed(int_grid<4>{}, {32, 64}, {1, 16}, true);
    tensors all = tensors_of(io::add_gptq, w);
    for (std::size_t i = 0; i < 64; i += 3) {
        std::int32_t group = 0;
        std::memcpy(&group, all["layer.g_idx"].bytes.data() + 4 * i, 4);
        all["layer.g_idx"].set(i, group - 4);
    }
    EXPECT_TRUE(dequantize(read(all, w.shape())) == dequantize(w));
}

TEST(packed_reader, nonsense_in_gptqs_layout_is_refused) {
    extents const shape{32, 64};
    tensors const good = tensors_of(io::add_gptq, random_packed(int_grid<4>{}, shape, {1, 16}));
    auto const refused = [&](std::string const& name, std::string const& problem,
                             std::function<void(tensors&)> const& change) {
        expect_refused(good, shape, name, problem, change);
    };
    auto const nothing = std::vector<std::uint8_t>{};
    refused("scales", "", [](tensors& t) { t.erase("layer.scales"); });
    refused("qzeros", "", [](tensors& t) { t.erase("layer.qzeros"); });
    refused("g_idx", "", [](tensors& t) { t.erase("layer.g_idx"); });
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

TEST(packed_reader, nonsense_in_its_own_layout_is_refused) {
    extents const shape{5, 37};
    tensors const good = tensors_of(io::add_packed, random_packed(int_grid<3>{}, shape, {2, 10}, true));
    auto const refused = [&](std::string const& name, std::string const& problem,
                             std::function<void(tensors&)> const& change) {
        expect_refused(good, shape, name, problem, change);
    };
    refused("codes", "", [](tensors& t) { t.erase("layer.codes"); });
    refused("scales", "", [](tensors& t) { t.erase("layer.scales"); });
    refused("table", "", [](tensors& t) { t.erase("layer.table"); });
    refused("tile", "", [](tensors& t) { t.erase("layer.tile"); });
    refused("codes", "must have the shape (5, 14)", [](tensors& t) { t["layer.codes"].shape = {14, 5}; });
    refused("codes", "has type I8", [](tensors& t) { t["layer.codes"].type = dtype::i8; });
    for (index_t const levels : {0, 1, 3, 7, 512}) {
        refused("table", "must have 2, 4, ... or 256 numbers", [&](tensors& t) {
            t["layer.table"] = tensor::of(dtype::f32, {levels}, std::vector<float>(static_cast<std::size_t>(levels)));
        });
    }
    refused("table", "must have 2, 4, ... or 256 numbers", [](tensors& t) { t["layer.table"].shape = {2, 4}; });
    refused("table", "not finite", [](tensors& t) { t["layer.table"].set(3, std::numeric_limits<float>::infinity()); });
    for (std::int32_t const size : {0, -1, 6, std::numeric_limits<std::int32_t>::max()}) {
        refused("tile", "is no tile of the weights", [&](tensors& t) { t["layer.tile"].set(0, size); });
    }
    refused("tile", "is no tile of the weights", [](tensors& t) { t["layer.tile"].set(1, std::int32_t{38}); });
    refused("tile", "must have the shape (2)", [](tensors& t) { t["layer.tile"].shape = {1, 2}; });
    refused("scales", "must have the shape (5, 4)", [](tensors& t) { t["layer.tile"].set(0, std::int32_t{1}); });
    refused("scales", "not finite", [](tensors& t) { t["layer.scales"].set(3, std::uint16_t{0x7E00}); });
    refused("zeros", "must have the shape (3, 4)", [](tensors& t) { t["layer.zeros"].shape = {4, 3}; });
    refused("codes", "uses a code that stands for no number",
            [](tensors& t) { t["layer.table"].set(1, std::numeric_limits<float>::quiet_NaN()); });
    // A small file that claims to be huge is refused before memory is asked for.
    std::string const huge = failure_message([&] { read(good, {index_t{1} << 40, index_t{1} << 22}); });
    EXPECT_TRUE(contains(huge, "'layer.codes'")) << huge;
    std::string const message = failure_message([&] { read(good, {5, 38}); });
    EXPECT_TRUE(contains(message, "'layer.")) << message;
}

TEST(add_packed, zero_points_that_are_no_integers_are_floats) {
    packed_matrix w = random_packed(int_grid<4>{}, {5, 37}, {1, 10});
    EXPECT_TRUE(io::has_integer_zeros(w));
    tensors const integers = tensors_of(io::add_packed, w);
    EXPECT_EQ(integers.at("layer.zeros").type, dtype::u8);
    for (float const zero : {2.5F, -1.0F, 16.0F, 1e9F}) {
        w.scales.zeros[3] = zero;
        EXPECT_FALSE(io::has_integer_zeros(w));
        EXPECT_TRUE(written_and_read(io::add_packed, {w}).front() == w) << zero;
        EXPECT_EQ(io::gptq_obstacle(w), "its zero points are integers");
    }
    tensors all = tensors_of(io::add_packed, w);
    EXPECT_EQ(all.at("layer.zeros").type, dtype::f32);
    expect_refused(all, w.shape(), "zeros", "not finite",
                   [](tensors& t) { t["layer.zeros"].set(0, std::numeric_limits<float>::infinity()); });
}

TEST(add_packed, maps_of_every_kind_are_read_back) {
    std::vector<packed_matrix> matrices;
    for (std::string const kind : test::kinds_of_maps) {
        for (index_t const width : {1, 2, 16}) {
            matrices.push_back(random_weak(e2m1{}, {6, 48}, {1, 16}, 3, float_format::bf16));
            matrices.back().map = test::random_map(kind, 48, width);
        }
    }
    auto const read = written_and_read(io::add_packed, matrices);
    for (std::size_t i = 0; i < matrices.size(); ++i) {
        EXPECT_TRUE(read[i] == matrices[i]) << i;
        EXPECT_EQ(read[i].map, matrices[i].map) << i;
        EXPECT_EQ(dequantize(read[i]), dequantize(matrices[i])) << i;
    }
}

TEST(add_packed, writes_a_tensor_for_each_step) {
    packed_matrix w = random_packed(e2m1{}, {6, 48}, {1, 16});
    w.map = test::random_map("hdp", 48, 16);
    tensors all = tensors_of(io::add_packed, w);
    EXPECT_EQ(all["layer.map.0.hadamard"].type, dtype::i32);
    EXPECT_EQ(all["layer.map.0.hadamard"].shape, std::vector<index_t>{1});
    EXPECT_EQ(all["layer.map.0.hadamard"].bytes, io::bytes_of(std::vector<std::int32_t>{16}));
    EXPECT_EQ(all["layer.map.1.factors"].type, dtype::f32);
    EXPECT_EQ(all["layer.map.1.factors"].bytes, io::bytes_of(std::get<diagonal>(w.map.steps()[1]).factors));
    EXPECT_EQ(all["layer.map.2.order"].type, dtype::i32);
    EXPECT_EQ(all["layer.map.2.order"].bytes, io::bytes_of(std::get<permutation>(w.map.steps()[2]).order));
    EXPECT_EQ(all.size(), 4U + 3U); // codes, scales, table and tile
}

TEST(packed_reader, nonsense_in_maps_is_refused) {
    extents const shape{6, 48};
    packed_matrix w = random_packed(e2m1{}, shape, {1, 16});
    w.map = test::random_map("pdhp", 48, 16);
    tensors const good = tensors_of(io::add_packed, w);
    auto const refused = [&](std::string const& name, std::string const& problem,
                             std::function<void(tensors&)> const& change) {
        expect_refused(good, shape, name, problem, change);
    };
    for (std::string const step : {"map.0.order", "map.3.order"}) {
        std::string const order = "layer." + step;
        refused(step, "must have the shape (48)", [&](tensors& t) { t[order].shape = {48, 1}; });
        refused(step, "has type F32", [&](tensors& t) { t[order].type = dtype::f32; });
        for (std::int32_t const input : {-1, 48, std::numeric_limits<std::int32_t>::max()}) {
            refused(step, "its order is no permutation of 48 inputs", [&](tensors& t) { t[order].set(4, input); });
        }
        refused(step, "its order is no permutation of 48 inputs", [&](tensors& t) {
            t[order].set(0, std::int32_t{3});
            t[order].set(1, std::int32_t{3});
        });
    }
    refused("map.1.factors", "must have the shape (48)",
            [](tensors& t) { t["layer.map.1.factors"] = tensor::of(dtype::f32, {47}, std::vector<float>(47, 1.0F)); });
    refused("map.1.factors", "has type F64",
            [](tensors& t) { t["layer.map.1.factors"] = tensor::of(dtype::f64, {48}, std::vector<double>(48, 1.0)); });
    for (float const factor : {0.0F, -0.0F, std::numeric_limits<float>::denorm_min()}) {
        refused("map.1.factors", "the factor of input 7 is ",
                [&](tensors& t) { t["layer.map.1.factors"].set(7, factor); });
    }
    for (float const factor : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
        refused("map.1.factors", "not finite", [&](tensors& t) { t["layer.map.1.factors"].set(7, factor); });
    }
    for (std::int32_t const width : {0, -1, 3, 24, 32, std::numeric_limits<std::int32_t>::min()}) {
        refused("map.2.hadamard", "do not divide 48 inputs, or are no power of two",
                [&](tensors& t) { t["layer.map.2.hadamard"].set(0, width); });
    }
    refused("map.2.hadamard", "must have the shape (1)", [](tensors& t) { t["layer.map.2.hadamard"].shape = {}; });
    refused("map.2.order", "is there, but 'layer.map.2.hadamard' is too",
            [](tensors& t) { t["layer.map.2.order"] = t["layer.map.0.order"]; });
    refused("map.3.order", "comes after a step that is missing", [](tensors& t) { t.erase("layer.map.2.hadamard"); });
    refused("order", "is of an earlier version of this layout; quantize the model again",
            [](tensors& t) { t["layer.order"] = t["layer.map.0.order"]; });
}

/// What both layouts with weak columns refuse, by the names of their tensors.
void expect_bad_weak_columns_refused(tensors const& good, extents shape, std::string const& positions,
                                     std::string const& numbers, std::string const& codes) {
    std::string const at = "layer." + positions;
    std::string const weak = "layer." + numbers;
    auto const refused = [&](std::string const& name, std::string const& problem,
                             std::function<void(tensors&)> const& change) {
        expect_refused(good, shape, name, problem, change);
    };
    ASSERT_EQ(good.at(at).shape, std::vector<index_t>{4}); // column 0, two in between, the last one
    refused(numbers, "is missing", [&](tensors& t) { t.erase(weak); });
    using limits = std::numeric_limits<std::int32_t>;
    for (std::int32_t const column : {-1, static_cast<std::int32_t>(shape.cols), limits::max(), limits::min()}) {
        refused(positions, "names a column that is not there", [&](tensors& t) { t[at].set(3, column); });
    }
    refused(positions, "is not ascending", [&](tensors& t) { // the same one twice
        std::memcpy(t[at].bytes.data() + 4, t[at].bytes.data() + 8, 4);
    });
    refused(positions, "is not ascending", [&](tensors& t) { t[at].set(3, std::int32_t{0}); });
    refused(positions, "", [&](tensors& t) { t[at].shape = {2, 2}; });
    refused(positions, "has type F32", [&](tensors& t) { t[at].type = dtype::f32; });
    refused(numbers, "must have the shape (3, ", [&](tensors& t) {
        t[at].shape = {3};
        t[at].bytes.resize(12);
    });
    refused(numbers, "must have the shape (4, ", [&](tensors& t) { t[weak].shape = {2, 2 * shape.rows}; });
    refused(numbers, "has type I16", [&](tensors& t) { t[weak].type = dtype::i16; });
    refused(numbers, "has type F64", [&](tensors& t) {
        t[weak] = tensor::of(dtype::f64, t[weak].shape, std::vector<double>(static_cast<std::size_t>(4 * shape.rows)));
    });
    for (std::uint16_t const number : {0x7E00, 0x7C00, 0xFC00}) {
        refused(numbers, "not finite", [&](tensors& t) { t[weak].set(7, number); });
    }
    refused(codes, "has a code in a weak column that does not stand for 0",
            [&](tensors& t) { t["layer." + codes].bytes[0] ^= 1; });
}

TEST(packed_reader, nonsense_in_weak_columns_is_refused) {
    extents const shape{6, 37};
    tensors const good =
        tensors_of(io::add_packed, random_weak(int_grid<3>{}, shape, {2, 10}, 4, float_format::f16, true));
    expect_bad_weak_columns_refused(good, shape, "weak_columns", "weak", "codes");
    expect_refused(good, shape, "weak_columns", "is missing", [](tensors& t) { t.erase("layer.weak_columns"); });
    expect_refused(good, shape, "weak", "must have the shape (4, 6)", [](tensors& t) {
        t["layer.weak"].shape = {6, 4};
    });
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
    std::string const missing = failure_message([&] { read(without, shape, packed_layout::owq); });
    EXPECT_TRUE(contains(missing, "'layer.outlieridx'")) << missing;
    without.erase("layer.oweight");
    EXPECT_TRUE(read(without, shape, packed_layout::owq).weak.empty());
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

/// Changes random bytes and extents: reading throws error or succeeds with weak columns that make sense.
void expect_survives(tensors const& good, extents shape, packed_layout layout) {
    std::mt19937 random(1);
    int refused = 0;
    int accepted = 0;
    for (int trial = 0; trial < 100; ++trial) {
        tensors all = good;
        for (auto changes = 1 + random() % 3; changes > 0; --changes) {
            auto& t = std::next(all.begin(), static_cast<std::ptrdiff_t>(random() % all.size()))->second;
            auto const kind = random() % 4;
            if (kind < 2 && !t.bytes.empty()) {
                t.bytes[random() % t.bytes.size()] ^= static_cast<std::uint8_t>(1U << random() % 8);
            } else if (kind == 2 && !t.shape.empty() && t.shape[0] > 0) { // fewer rows
                index_t const rows = static_cast<index_t>(random() % static_cast<unsigned>(t.shape[0]));
                t.bytes.resize(t.bytes.size() / static_cast<std::size_t>(t.shape[0]) * static_cast<std::size_t>(rows));
                t.shape[0] = rows;
            } else if (t.shape.size() == 2) {
                std::swap(t.shape[0], t.shape[1]);
            }
        }
        packed_matrix w;
        std::string const message = failure_message([&] { w = read(all, shape, layout); });
        (message.empty() ? accepted : refused) += 1;
        for (index_t k = 0; k < w.weak.count(); ++k) {
            index_t const col = w.weak.columns()[static_cast<std::size_t>(k)];
            ASSERT_TRUE(col >= 0 && col < shape.cols) << trial;
            for (index_t row = 0; row < shape.rows; ++row) {
                ASSERT_TRUE(std::isfinite(w.weak.at(k, row))) << trial;
                tile_scale const s = w.scales.at(row / w.tile.rows, col / w.tile.cols);
                ASSERT_EQ(w.table[w.code_at(row, col)], s.zero) << trial;
            }
        }
    }
    EXPECT_GT(refused, 0);
    EXPECT_GT(accepted, 0);
}

TEST(packed_reader, nonsense_in_scales_of_8_bits_is_refused) {
    packed_matrix const mx = bytes_packed(e2m1{}, scale_kind::e8m0);
    tensors const powers = tensors_of(io::add_packed, mx);
    tensors const numbers = tensors_of(io::add_packed, bytes_packed(e2m1{}, {scale_kind::ue4m3, 0.5F}));
    auto const refused = [&](tensors const& good, std::string const& name, std::string const& problem,
                             std::function<void(tensors&)> const& change) {
        expect_refused(good, mx.shape(), name, problem, change);
    };
    refused(powers, "scales", "no positive number", [](tensors& t) { t["layer.scales"].bytes[7] = 255; });
    for (std::uint8_t const byte : {0, 0x7F, 0x80, 0x81, 0xFE, 0xFF}) {
        refused(numbers, "scales", "no positive number", [&](tensors& t) { t["layer.scales"].bytes[7] = byte; });
    }
    for (auto const* const good : {&powers, &numbers}) {
        refused(*good, "scales", "must have the shape (16, 16)", [](tensors& t) { t["layer.scales"].shape = {8, 32}; });
        refused(*good, "scales", "must have the shape (16, 16)", [](tensors& t) {
            t["layer.scales"] = {t["layer.scales"].type, {0, 16}, {}};
        });
    }
    refused(powers, "scales", "has type U8", [](tensors& t) { t["layer.scales"].type = dtype::u8; });
    refused(numbers, "scales", "has type F8_E5M2", [](tensors& t) {
        t["layer.scales"].type = dtype::f8_e5m2;
        t.erase("layer.scale_unit");
    });
    refused(numbers, "scale_unit", "", [](tensors& t) { t.erase("layer.scale_unit"); });
    refused(numbers, "scale_unit", "must have the shape (1)", [](tensors& t) { t["layer.scale_unit"].shape = {1, 1}; });
    refused(numbers, "scale_unit", "has type I32", [](tensors& t) { t["layer.scale_unit"].type = dtype::i32; });
    for (float const unit : {0.0F, -0.0F, -0.5F, 1e-40F, 0x1.FFFFFEp-118F, 0x1.000002p119F}) {
        refused(numbers, "scale_unit", "must be a number from 2^-117 to 2^119",
                [&](tensors& t) { t["layer.scale_unit"].set(0, unit); });
    }
    for (float const unit : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
        refused(numbers, "scale_unit", "not finite", [&](tensors& t) { t["layer.scale_unit"].set(0, unit); });
    }
    refused(powers, "scale_unit", "belongs to scales of type F8_E4M3, not F8_E8M0",
            [](tensors& t) { t["layer.scale_unit"] = tensor::of(dtype::f32, {1}, std::vector{0.5F}); });
}

TEST(packed_reader, survives_random_changes) {
    for (scale_format const format : {scale_format(scale_kind::e8m0), scale_format(scale_kind::ue4m3, 0.5F)}) {
        packed_matrix const bytes = bytes_packed(e2m1{}, format);
        expect_survives(tensors_of(io::add_packed, bytes), bytes.shape(), packed_layout::detent);
    }
    packed_matrix const own = random_weak(int_grid<3>{}, {6, 37}, {2, 10}, 4, float_format::f16, true);
    expect_survives(tensors_of(io::add_packed, own), own.shape(), packed_layout::detent);
    packed_matrix const owq = random_weak(int_grid<4>{}, {6, 64}, {1, 64}, 4, float_format::bf16);
    expect_survives(tensors_of(io::add_owq, owq), owq.shape(), packed_layout::owq);
}

/// How the input of "layer", which has 5 of them, is rounded.
std::optional<io::stored_input> read_input(tensors const& all, packed_layout layout = packed_layout::detent) {
    temporary_directory const directory;
    safetensors_writer writer;
    for (auto const& [name, t] : all) {
        writer.add(name, t.type, t.shape, t.bytes);
    }
    writer.save(directory / "model.safetensors");
    checkpoint const file(directory / "model.safetensors");
    return packed_reader(file, layout).input("layer", 5);
}

/// The tensors that `add_input` writes for "layer".
tensors tensors_of(io::stored_input const& input) {
    temporary_directory const directory;
    safetensors_writer writer;
    io::add_input(writer, "layer", input);
    writer.save(directory / "model.safetensors");
    checkpoint const file(directory / "model.safetensors");
    tensors all;
    for (std::string const& name : file.names()) {
        auto const& t = file.at(name);
        all[name] = {t.type, t.shape, {t.bytes.begin(), t.bytes.end()}};
    }
    return all;
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
        for (packed_layout const layout : {packed_layout::gptq_v1, packed_layout::gptq_v2, packed_layout::owq}) {
            std::string const message = failure_message([&] { read_input(tensors_of(input), layout); });
            EXPECT_TRUE(contains(message, "'layer.input_")) << message;
            EXPECT_TRUE(contains(message, "quant_method in config.json is not 'detent'")) << message;
        }
        auto const read = read_input(tensors_of(input));
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
    for (packed_layout const layout : {packed_layout::detent, packed_layout::gptq_v2}) {
        EXPECT_FALSE(read_input(other, layout).has_value());
    }
}

TEST(add_input, writes_only_what_there_is) {
    tensors all = tensors_of({.grid = "int8sym"});
    ASSERT_EQ(all.size(), 1);
    EXPECT_EQ(all["layer.input_grid"].type, dtype::u8);
    EXPECT_EQ(all["layer.input_grid"].bytes, (std::vector<std::uint8_t>{'i', 'n', 't', '8', 's', 'y', 'm'}));
    all = tensors_of({.grid = "int8", .scales = {0.5F}, .zeros = {7.0F}, .shifts = {1, 2, 3, 4, 5}});
    ASSERT_EQ(all.size(), 4);
    EXPECT_EQ(all["layer.input_scale"].type, dtype::f32);
    EXPECT_EQ(all["layer.input_scale"].bytes, io::bytes_of(std::vector{0.5F}));
    EXPECT_EQ(all["layer.input_zero"].type, dtype::f32);
    EXPECT_EQ(all["layer.input_zero"].bytes, io::bytes_of(std::vector{7.0F}));
    EXPECT_EQ(all["layer.input_shifts"].type, dtype::i8);
    EXPECT_EQ(all["layer.input_shifts"].shape, std::vector<index_t>{5});
    all = tensors_of({.grid = "e2m1", .width = 16, .kind = scale_kind::ue4m3, .unit = 0.5F});
    ASSERT_EQ(all.size(), 4);
    EXPECT_EQ(all["layer.input_width"].type, dtype::i32);
    EXPECT_EQ(all["layer.input_width"].bytes, io::bytes_of(std::vector<std::int32_t>{16}));
    EXPECT_EQ(all["layer.input_scale_type"].type, dtype::u8);
    EXPECT_EQ(all["layer.input_scale_type"].bytes, (std::vector<std::uint8_t>{'F', '8', '_', 'E', '4', 'M', '3'}));
    EXPECT_EQ(all["layer.input_scale_unit"].type, dtype::f32);
    EXPECT_EQ(all["layer.input_scale_unit"].bytes, io::bytes_of(std::vector{0.5F}));
}

TEST(packed_reader, nonsense_about_inputs_is_refused) {
    tensors const good = tensors_of({.grid = "int8", .scales = {0.5F}, .zeros = {7.0F}, .shifts = {1, 2, 3, 4, 5}});
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
        tensors all = tensors_of(input);
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

TEST(packed_reader, a_layer_that_is_not_there_is_an_error) {
    tensors const good = tensors_of(io::add_packed, random_packed(int_grid<3>{}, {5, 37}, {1, 37}));
    tensors other;
    for (auto const& [name, t] : good) {
        other["another" + name] = t;
    }
    EXPECT_TRUE(contains(failure_message([&] { read(other, {5, 37}); }), "layer."));
}

} // namespace

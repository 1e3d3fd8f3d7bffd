// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <gtest/gtest.h>

#include "detent/io/layout_detent.hpp"
#include "io/layout_support.hpp"

namespace detent::test {
namespace {

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
        expect_survives(tensors_of(io::add_packed, bytes), bytes.shape(), detent_settings());
    }
    packed_matrix const own = random_weak(int_grid<3>{}, {6, 37}, {2, 10}, 4, float_format::f16, true);
    expect_survives(tensors_of(io::add_packed, own), own.shape(), detent_settings());
    packed_matrix const owq = random_weak(int_grid<4>{}, {6, 64}, {1, 64}, 4, float_format::bf16);
    expect_survives(tensors_of(io::add_owq, owq), owq.shape(), owq_settings());
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
} // namespace detent::test

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <algorithm>
#include <bit>
#include <cctype>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "detent/io/ggml_type.hpp"
#include "detent/io/packed_tensors.hpp"
#include "golden/ggml_rows.hpp"
#include "io/failure_message.hpp"
#include "io/ggml_reference.hpp"
#include "pack/random_codes.hpp"

namespace {

using namespace detent;
using io::ggml_type;
using io::ggml_type_named;

constexpr float none = std::numeric_limits<float>::quiet_NaN();

/// The name of a type as it is in the golden file.
std::string golden_name(ggml_type const& type) {
    std::string name(type.name);
    for (char& c : name) {
        c = c == 'K' ? c : static_cast<char>(std::tolower(c));
    }
    return name;
}

std::vector<float> floats_of(packed_matrix const& w) {
    std::vector<float> result(static_cast<std::size_t>(w.shape().size()));
    io::copy_to_floats(w, 0, w.shape().rows, result.data());
    return result;
}

std::vector<std::uint8_t> blocks_of(ggml_type const& type, packed_matrix const& w, index_t first, index_t last) {
    std::vector<index_t> const shape{last - first, w.shape().cols};
    std::vector<std::uint8_t> blocks(static_cast<std::size_t>(type.bytes(shape, "blocks")));
    type.write(w, first, last, blocks.data());
    return blocks;
}

std::vector<std::uint8_t> blocks_of(ggml_type const& type, packed_matrix const& w) {
    return blocks_of(type, w, 0, w.shape().rows);
}

/// Numbers that count from `lowest` on.
std::vector<float> integers_from(int lowest, int bits) {
    std::vector<float> table;
    for (int c = 0; c < 1 << bits; ++c) {
        table.push_back(static_cast<float>(lowest + c));
    }
    return table;
}

/// Random codes of those of the table that are numbers, and random scales, both signs where the format has them, with
/// random zero points where it is asked for.
packed_matrix random_matrix(std::vector<float> const& table, extents shape, extents tile, scale_format format,
                            bool zeros = false) {
    packed_matrix w;
    w.bits = std::countr_zero(table.size());
    w.extent = shape;
    w.tile = tile;
    w.table = table;
    w.scales = scale_store(shape, tile, format, zeros);
    std::mt19937 random(7);
    std::uniform_real_distribution<float> exponent(-8, 3);
    for (std::size_t i = 0; i < w.scales.scales.size(); ++i) {
        w.scales.scales[i] = store(format, format.unit * std::exp2(exponent(random)));
        if (format == float_format::f16 && !zeros && random() % 2 == 0) {
            w.scales.scales[i] *= -1;
        }
        if (zeros) {
            w.scales.zeros[i] = static_cast<float>(random() % table.size());
        }
    }
    auto codes = test::random_codes(w.bits, shape.size());
    for (code& c : codes) {
        c = std::isnan(table[c]) ? code{0} : c;
    }
    w.codes = pack_rows(w.bits, shape, codes.data());
    return w;
}

/// What each type that is written holds: a table, the width of tiles, the format of scales, whether with zero points.
struct held {
    std::string type;
    std::vector<float> table;
    index_t tile_cols;
    scale_format format = float_format::f16;
    bool zeros = false;
};

std::vector<held> const& all_held() {
    std::vector<float> const e2m1_numbers{0, 0.5F, 1, 1.5F, 2, 3, 4, 6, -0.0F, -0.5F, -1, -1.5F, -2, -3, -4, -6};
    std::vector<float> nonlinear;
    for (int c = 0; c < 16; ++c) {
        nonlinear.push_back(static_cast<float>(test::nonlinear_number(c)));
    }
    static std::vector<held> const all{
        {"Q4_0", integers_from(-8, 4), 32},
        {"Q4_1", integers_from(0, 4), 32, float_format::f16, true},
        {"Q5_0", integers_from(-16, 5), 32},
        {"Q5_1", integers_from(0, 5), 32, float_format::f16, true},
        {"Q8_0", integers_from(-128, 8), 32},
        {"IQ4_NL", nonlinear, 32},
        {"MXFP4", e2m1_numbers, 32, scale_kind::e8m0},
        {"NVFP4", e2m1_numbers, 16, scale_kind::ue4m3},
        {"TQ1_0", {-1, 0, 1, none}, 256},
        {"TQ2_0", {-1, 0, 1, none}, 256},
        {"Q1_0", {-1, 1}, 128},
        {"Q2_0", {-1, 0, 1, none}, 64},
    };
    return all;
}

packed_matrix random_of(held const& h, index_t rows = 3, index_t cols = 512) {
    return random_matrix(h.table, {rows, cols}, {1, h.tile_cols}, h.format, h.zeros);
}

TEST(ggml_type, table_has_each_number_and_name_once) {
    for (auto const& type : io::ggml_types()) {
        EXPECT_EQ(io::find_ggml_type(type.id), &type) << type.name;
        EXPECT_EQ(&ggml_type_named(type.name), &type) << type.name;
        EXPECT_EQ(type.plain.has_value(), type.block_codes == 1) << type.name;
        if (type.plain) {
            EXPECT_EQ(type.block_bytes * 8, io::bit_size(*type.plain)) << type.name;
        }
        EXPECT_EQ(type.write == nullptr, type.obstacle_of == nullptr) << type.name;
    }
    EXPECT_EQ(io::find_ggml_type(4), nullptr); // was one of an early version
    EXPECT_TRUE(contains(failure_message([] { ggml_type_named("Q9_9"); }), "ggml's type 'Q9_9': is not known"));
}

TEST(ggml_type, golden_rows_are_read_as_ggml_reads_them_and_written_again) {
    std::size_t read = 0;
    for (auto const& type : io::ggml_types()) {
        auto const found = test::golden_rows().find(golden_name(type));
        if (found == test::golden_rows().end()) {
            EXPECT_EQ(type.read, nullptr) << type.name;
            continue;
        }
        ++read;
        auto const& row = found->second;
        ASSERT_EQ(type.id, row.id);
        std::vector<index_t> const shape{512};
        ASSERT_EQ(type.bytes(shape, "row"), std::ssize(row.bytes)) << type.name;
        auto const w = type.read(row.bytes.data(), {1, 512});
        auto const numbers = floats_of(w);
        for (std::size_t i = 0; i < 512; ++i) {
            // What is added is a zero point here, which rounds otherwise.
            float const tolerance = w.scales.zeros.empty() ? 0 : 4e-7F * std::max(1.0F, std::abs(row.numbers[i]));
            EXPECT_NEAR(numbers[i], row.numbers[i], tolerance) << type.name << ", number " << i;
            EXPECT_EQ(numbers[i], w.stored_at(0, static_cast<index_t>(i)));
        }
        if (type.write != nullptr) {
            EXPECT_EQ(type.obstacle(w), "") << type.name;
            EXPECT_EQ(blocks_of(type, w), row.bytes) << type.name;
        } else {
            EXPECT_EQ(type.obstacle(w), "it is not written") << type.name;
        }
        EXPECT_EQ(io::has_integer_zeros(w), w.scales.zeros.empty()) << type.name;
    }
    EXPECT_EQ(read, 18U);
}

/// Blocks of random bytes, but for scales that are no finite numbers.
std::vector<std::uint8_t> random_blocks(ggml_type const& type, index_t blocks, unsigned seed) {
    std::mt19937 random(seed);
    std::vector<std::uint8_t> bytes(static_cast<std::size_t>(blocks * type.block_bytes));
    for (index_t b = 0; b < blocks; ++b) {
        auto* const block = bytes.data() + b * type.block_bytes;
        for (bool finite = false; !finite;) {
            for (index_t i = 0; i < type.block_bytes; ++i) {
                block[i] = static_cast<std::uint8_t>(random() >> 7);
            }
            finite = failure_message([&] { type.read(block, {1, type.block_codes}); }).empty();
        }
    }
    return bytes;
}

TEST(ggml_type, random_blocks_are_read_as_the_description_says) {
    for (auto const& [name, decode] : test::ggml_decoders()) {
        auto const& type = ggml_type_named(name);
        extents const shape{4, 3 * type.block_codes};
        auto const bytes = random_blocks(type, 12, 5);
        auto const w = type.read(bytes.data(), shape);
        ASSERT_EQ(w.shape(), shape);
        for (index_t row = 0; row < shape.rows; ++row) {
            for (index_t col = 0; col < shape.cols; ++col) {
                index_t const block = row * 3 + col / type.block_codes;
                auto const i = static_cast<int>(col % type.block_codes);
                double const expected = decode(bytes.data() + block * type.block_bytes, i);
                auto const s = w.scales.at(row, col / w.tile.cols);
                double const added = std::abs(double{s.zero} * s.scale); // 0 without zero points, and nothing rounds
                double const tolerance = added > 0 ? 3e-7 * (added + std::abs(expected)) : 0;
                EXPECT_NEAR(w.stored_at(row, col), expected, tolerance) << name << " " << row << " " << col;
            }
        }
    }
}

TEST(ggml_type, what_is_written_is_read_to_the_bit) {
    for (auto const& h : all_held()) {
        auto const& type = ggml_type_named(h.type);
        auto const w = random_of(h);
        ASSERT_EQ(type.obstacle(w), "") << h.type;
        auto const blocks = blocks_of(type, w);
        auto const again = type.read(blocks.data(), w.shape());
        EXPECT_TRUE(again == w) << h.type;
        EXPECT_EQ(blocks_of(type, again), blocks) << h.type;
        EXPECT_TRUE(io::has_integer_zeros(again)) << h.type;
        auto const& decode = test::ggml_decoders().at(h.type);
        for (index_t col = 0; col < 512; ++col) {
            index_t const block = (512 + col) / type.block_codes;
            double const expected =
                decode(blocks.data() + block * type.block_bytes, static_cast<int>(col % type.block_codes));
            // What Q4_1 and Q5_1 add is rounded to f16.
            double const tolerance =
                h.zeros ? 0x1p-11 * std::abs(w.scales.at(1, col / 32).zero * w.scales.at(1, col / 32).scale) : 0;
            EXPECT_NEAR(w.stored_at(1, col), expected, tolerance) << h.type;
        }
    }
}

/// Blocks of two levels are found again, whatever their factors are: some are 0, others negative.
TEST(ggml_type, scales_of_two_levels_are_written_to_the_bit) {
    for (char const* const name : {"Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"}) {
        auto const& type = ggml_type_named(name);
        extents const shape{20, 512};
        auto const bytes = random_blocks(type, 40, 7);
        auto const w = type.read(bytes.data(), shape);
        ASSERT_EQ(type.obstacle(w), "") << name;
        auto const blocks = blocks_of(type, w);
        EXPECT_TRUE(type.read(blocks.data(), shape) == w) << name;
        auto part = blocks_of(type, w, 0, 7);
        auto const rest = blocks_of(type, w, 7, 20);
        part.insert(part.end(), rest.begin(), rest.end());
        EXPECT_EQ(part, blocks) << name;
    }
}

TEST(ggml_type, obstacles_of_two_levels) {
    auto const& type = ggml_type_named("Q4_K");
    auto w = random_matrix(integers_from(0, 4), {2, 256}, {1, 32}, float_format::f32, true);
    std::ranges::fill(w.scales.zeros, 3.0F);
    std::ranges::fill(w.scales.scales, 0.5F);
    EXPECT_EQ(type.obstacle(w), "");
    w.scales.scales[11] = 0.5F * 17 / 23;
    EXPECT_EQ(type.obstacle(w), "its scales are an f16 number for 256 weights times small integers");
    w.scales.scales[11] = 0.25F;
    EXPECT_EQ(type.obstacle(w), ""); // 1.5 and 0.75 are subtracted
    w.scales.zeros[11] = 3.001F;
    EXPECT_FALSE(type.obstacle(w).empty());
    EXPECT_EQ(type.obstacle(random_matrix(integers_from(-8, 4), {2, 256}, {1, 32}, float_format::f32)),
              "its grids are integers with zero points");
    EXPECT_EQ(ggml_type_named("Q6_K").obstacle(
                  random_matrix(integers_from(0, 6), {2, 256}, {1, 16}, float_format::f32, true)),
              "its grids are symmetric integers");
    EXPECT_EQ(type.obstacle(random_matrix(integers_from(0, 4), {2, 128}, {1, 32}, float_format::f32, true)),
              "a row of 128 weights is not of whole blocks, which have 256");
}

TEST(ggml_type, rows_are_written_alone) {
    for (auto const& h : all_held()) {
        auto const& type = ggml_type_named(h.type);
        auto const w = random_of(h, 7);
        auto const all = blocks_of(type, w);
        auto parts = blocks_of(type, w, 0, 2);
        for (auto const& [first, last] : {std::pair<index_t, index_t>{2, 2}, {2, 6}, {6, 7}}) {
            auto const part = blocks_of(type, w, first, last);
            parts.insert(parts.end(), part.begin(), part.end());
        }
        EXPECT_EQ(parts, all) << h.type;
        EXPECT_EQ(blocks_of(type, random_of(h, 0)).size(), 0U);
    }
}

TEST(ggml_type, larger_tiles_get_their_scale_in_each_block) {
    auto const& type = ggml_type_named("Q4_0");
    for (extents const tile : {extents{1, 128}, extents{1, 512}, extents{2, 64}, extents{5, 1000}}) {
        auto const w = random_matrix(integers_from(-8, 4), {5, 512}, tile, float_format::f16);
        ASSERT_EQ(type.obstacle(w), "");
        auto const again = type.read(blocks_of(type, w).data(), w.shape());
        EXPECT_TRUE(again.codes == w.codes);
        EXPECT_EQ(floats_of(again), floats_of(w));
    }
}

TEST(ggml_type, the_same_zero_point_for_all_is_that_of_a_symmetric_grid) {
    auto const& type = ggml_type_named("Q4_0");
    auto w = random_matrix(integers_from(0, 4), {3, 64}, {1, 32}, float_format::f16, true);
    EXPECT_EQ(type.obstacle(w), "it has no zero points, but the same for all weights, as symmetric grids have");
    std::ranges::fill(w.scales.zeros, 7.0F);
    EXPECT_FALSE(type.obstacle(w).empty());
    std::ranges::fill(w.scales.zeros, 8.0F);
    ASSERT_EQ(type.obstacle(w), "");
    auto const again = type.read(blocks_of(type, w).data(), w.shape());
    EXPECT_TRUE(again.codes == w.codes);
    EXPECT_EQ(floats_of(again), floats_of(w));
    // Symmetric grids fit the types with zero points too: what is added is then exact.
    auto const symmetric = random_matrix(integers_from(-8, 4), {3, 64}, {1, 32}, float_format::f16);
    auto const& shifted = ggml_type_named("Q4_1");
    ASSERT_EQ(shifted.obstacle(symmetric), "");
    EXPECT_EQ(floats_of(shifted.read(blocks_of(shifted, symmetric).data(), symmetric.shape())), floats_of(symmetric));
}

TEST(ggml_type, codes_of_the_same_numbers_in_another_order_are_renamed) {
    for (auto const& name : {"Q4_0", "IQ4_NL", "MXFP4", "TQ2_0", "Q8_0"}) {
        auto const h = *std::ranges::find(all_held(), std::string(name), &held::type);
        auto const& type = ggml_type_named(h.type);
        auto w = random_of(h);
        std::ranges::reverse(w.table);
        auto codes = test::random_codes(w.bits, w.shape().size());
        for (code& c : codes) {
            c = std::isnan(w.table[c]) ? code{1} : c;
        }
        w.codes = pack_rows(w.bits, w.shape(), codes.data());
        ASSERT_EQ(type.obstacle(w), "") << name;
        EXPECT_EQ(floats_of(type.read(blocks_of(type, w).data(), w.shape())), floats_of(w)) << name;
    }
}

TEST(ggml_type, obstacles) {
    auto const of = [](char const* type, packed_matrix const& w) { return ggml_type_named(type).obstacle(w); };
    auto const w = random_of(all_held().front());
    EXPECT_EQ(of("Q5_0", w), "it stores 5 bits, not 4");
    EXPECT_EQ(of("IQ4_XS", w), "it is not written");
    EXPECT_EQ(of("F16", w), "it stores numbers, no codes");
    EXPECT_EQ(of("IQ4_NL", w), "its grid has other numbers");
    EXPECT_EQ(of("MXFP4", w), "its scales are powers of two (E8M0)");
    EXPECT_EQ(of("NVFP4", w), "its scales are E4M3");
    auto other = w;
    other.weak = weak_columns({3}, 3, float_format::f16);
    EXPECT_EQ(of("Q4_0", other), "it has no weak columns");
    other = w;
    other.map = input_map(diagonal{std::vector<float>(512, 2.0F)}, 512);
    EXPECT_EQ(of("Q4_0", other), "its inputs are as they come");
    auto const table = integers_from(-8, 4);
    EXPECT_EQ(of("Q4_0", random_matrix(table, {1, 48}, {1, 16}, float_format::f16)),
              "a row of 48 weights is not of whole blocks, which have 32");
    EXPECT_EQ(of("Q4_0", random_matrix(table, {1, 64}, {1, 16}, float_format::f16)),
              "its scales are each of 32 weights, not of 16");
    EXPECT_EQ(of("Q4_0", random_matrix(table, {1, 96}, {1, 48}, float_format::f16)),
              "its scales are each of 32 weights, not of 48");
    EXPECT_EQ(of("Q4_0", random_matrix(table, {1, 64}, {1, 32}, float_format::f32)), "its scales are f16");
    auto exact = random_matrix(table, {1, 64}, {1, 32}, float_format::f32);
    exact.scales.scales = {0.5F, -3.0F};
    EXPECT_EQ(of("Q4_0", exact), ""); // f16 holds these
    exact.scales.scales = {0.5F, std::numeric_limits<float>::infinity()};
    EXPECT_EQ(of("Q4_0", exact), "its scales are f16");
    auto shifted = random_matrix(integers_from(0, 4), {1, 64}, {1, 32}, float_format::f16, true);
    shifted.scales.scales = {1.0F, 65504.0F};
    shifted.scales.zeros = {0.0F, 15.0F};
    EXPECT_EQ(of("Q4_1", shifted), "its zero points times their scales are finite numbers of f16");
    shifted.table[3] = 2.5F;
    EXPECT_EQ(of("Q4_1", shifted), "its grids are integers");
}

TEST(ggml_type, the_unit_of_e4m3_scales_is_apart) {
    auto const& type = ggml_type_named("NVFP4");
    auto const h = *std::ranges::find(all_held(), std::string("NVFP4"), &held::type);
    scale_format const format{scale_kind::ue4m3, 0.37F};
    auto const w = random_matrix(h.table, {3, 128}, {1, 16}, format);
    ASSERT_EQ(type.obstacle(w), "");
    auto again = type.read(blocks_of(type, w).data(), w.shape());
    io::set_scale_unit(again, 0.37F);
    EXPECT_TRUE(again == w);
    EXPECT_TRUE(contains(failure_message([&] { io::set_scale_unit(again, 2); }), "are not E4M3 in units of 1"));
    again = type.read(blocks_of(type, w).data(), w.shape());
    EXPECT_FALSE(failure_message([&] { io::set_scale_unit(again, 0); }).empty());
}

TEST(ggml_type, scales_that_are_0_give_the_numbers_of_ggml) {
    auto const h = *std::ranges::find(all_held(), std::string("NVFP4"), &held::type);
    auto const& nvfp4 = ggml_type_named("NVFP4");
    auto blocks = blocks_of(nvfp4, random_of(h, 1, 64));
    blocks[1] = 0;
    auto w = nvfp4.read(blocks.data(), {1, 64});
    for (index_t col = 0; col < 64; ++col) {
        EXPECT_EQ(w.stored_at(0, col) == 0, (col >= 16 && col < 32) || w.table[w.code_at(0, col)] == 0);
    }
    EXPECT_EQ(nvfp4.obstacle(w), "");
    auto const& q4_1 = ggml_type_named("Q4_1");
    for (float const added : {2.5F, -0.375F, 0.0F}) {
        std::vector<std::uint8_t> block(20, 0x5A); // whatever codes
        half const numbers[] = {half(0.0F), half(added)};
        std::memcpy(block.data(), numbers, 4);
        w = q4_1.read(block.data(), {1, 32});
        EXPECT_EQ(floats_of(w), std::vector<float>(32, added));
        EXPECT_EQ(q4_1.obstacle(w), "");
        EXPECT_EQ(floats_of(q4_1.read(blocks_of(q4_1, w).data(), w.shape())), std::vector<float>(32, added));
    }
}

TEST(ggml_type, scales_that_are_no_numbers_are_refused) {
    auto const refused = [](char const* name, index_t byte, std::vector<std::uint8_t> const& bad) {
        auto const& type = ggml_type_named(name);
        std::vector<std::uint8_t> blocks(static_cast<std::size_t>(3 * type.block_bytes), 1);
        std::ranges::copy(bad, blocks.data() + type.block_bytes + byte);
        auto const message = failure_message([&] { type.read(blocks.data(), {3, type.block_codes}); });
        EXPECT_EQ(message, "block 1: has a scale that is no finite number") << name;
    };
    std::vector<std::uint8_t> const infinite{0x00, 0x7C};
    refused("Q4_0", 0, infinite);
    refused("Q4_1", 0, infinite);
    refused("Q4_1", 2, {0x01, 0xFC});
    refused("TQ2_0", 64, infinite);
    refused("TQ1_0", 52, infinite);
    refused("Q4_K", 2, infinite);
    refused("Q6_K", 208, infinite);
    refused("MXFP4", 0, {255});
    refused("NVFP4", 3, {0x7F}); // NaN
    refused("NVFP4", 0, {0x81}); // no sign
}

TEST(ggml_type, sizes_of_tensors) {
    auto const& type = ggml_type_named("Q4_K");
    auto const bytes = [&](std::vector<index_t> const& shape) { return type.bytes(shape, "this tensor"); };
    EXPECT_EQ(bytes({2, 3, 512}), 2 * 3 * 2 * 144);
    EXPECT_EQ(bytes({0, 512}), 0);
    EXPECT_EQ(ggml_type_named("F32").bytes({}, "this tensor"), 4);
    EXPECT_EQ(failure_message([&] {
                  bytes({2, 300});
              }),
              "this tensor: a row of 300 numbers is not of whole blocks of Q4_K, which have 256");
    EXPECT_FALSE(failure_message([&] { bytes({}); }).empty());
    EXPECT_FALSE(failure_message([&] { bytes({-1, 512}); }).empty());
    EXPECT_FALSE(failure_message([&] { bytes({index_t{1} << 40, index_t{1} << 40, 0}); }).empty());
}

} // namespace

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <algorithm>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "detent/io/layout_awq.hpp"
#include "io/layout_support.hpp"

namespace detent::test {
namespace {

nlohmann::json awq_settings() { return {{"quant_method", "awq"}, {"bits", 4}, {"version", "gemm"}}; }

template <Grid G> void expect_awq_round_trip(G const& grid) {
    std::vector<packed_matrix> matrices;
    for (extents const shape : {extents{8, 32}, {64, 160}}) {
        for (index_t const width : {shape.cols, index_t{32}, index_t{16}}) {
            matrices.push_back(random_packed(grid, shape, {1, width}));
            ASSERT_EQ(io::awq_obstacle(matrices.back()), "");
        }
    }
    auto const read = written_and_read(io::add_awq, matrices, awq_settings());
    for (std::size_t i = 0; i < matrices.size(); ++i) {
        EXPECT_TRUE(dequantize(read[i]) == dequantize(matrices[i])) << i;
        EXPECT_EQ(read[i].codes, matrices[i].codes) << i;
        EXPECT_EQ(read[i].scales.scales, matrices[i].scales.scales) << i;
        EXPECT_EQ(read[i].tile, matrices[i].tile) << i;
    }
}

TEST(add_awq, what_it_writes_is_read_back) {
    expect_awq_round_trip(int_grid<4>{});
    expect_awq_round_trip(int_grid<4, zero::none>{});
}

TEST(add_awq, has_the_order_and_the_zero_points_of_autoawq) {
    constexpr int order[8] = {0, 2, 4, 6, 1, 3, 5, 7};
    auto const w = random_packed(int_grid<4>{}, {16, 64}, {1, 32});
    auto const all = tensors_of(io::add_awq, w);
    EXPECT_EQ(all.at("layer.qweight").shape, (std::vector<index_t>{64, 2}));
    EXPECT_EQ(all.at("layer.qzeros").shape, (std::vector<index_t>{2, 2}));
    EXPECT_EQ(all.at("layer.scales").shape, (std::vector<index_t>{2, 16}));
    EXPECT_EQ(all.size(), 3U);
    auto const nibble = [&](std::string const& name, index_t line, index_t out) {
        std::uint32_t word = 0;
        std::memcpy(&word, all.at(name).bytes.data() + 4 * (line * 2 + out / 8), 4);
        return word >> (4 * (std::ranges::find(order, out % 8) - order)) & 15U;
    };
    for (index_t out = 0; out < 16; ++out) {
        for (index_t k = 0; k < 64; ++k) {
            ASSERT_EQ(nibble("layer.qweight", k, out), w.code_at(out, k));
        }
        for (index_t g = 0; g < 2; ++g) {
            ASSERT_EQ(nibble("layer.qzeros", g, out), static_cast<unsigned>(w.scales.at(out, g).zero));
        }
    }
}

TEST(awq_obstacle, says_what_the_layout_cannot_hold) {
    auto const obstacle = [](auto const& grid, extents shape, extents tile, bool reordered = false) {
        return io::awq_obstacle(random_packed(grid, shape, tile, reordered));
    };
    EXPECT_EQ(obstacle(int_grid<3>{}, {32, 32}, {1, 32}), "it stores 4 bits, not 3");
    EXPECT_EQ(obstacle(e2m1{}, {32, 32}, {1, 32}), "its grids are integers");
    EXPECT_EQ(obstacle(int_grid<4>{}, {32, 32}, {2, 32}), "each of its rows has its own scales");
    EXPECT_EQ(obstacle(int_grid<4>{}, {32, 32}, {1, 24}), "its groups are all of the same width");
    EXPECT_EQ(obstacle(int_grid<4>{}, {32, 32}, {1, 16}, true), "its inputs are as they come");
    EXPECT_EQ(obstacle(int_grid<4>{}, {12, 32}, {1, 16}), "a weight of shape (12, 32) does not fill its words");
    auto w = random_packed(int_grid<4>{}, {32, 32}, {1, 32});
    w.scales.format = float_format::bf16;
    EXPECT_EQ(io::awq_obstacle(w), "its scales are f16");
    EXPECT_EQ(io::awq_obstacle(random_weak(int_grid<4>{}, {32, 32}, {1, 32}, 2, float_format::f16)),
              "it has no weak columns");
}

TEST(awq_reader, impossible_settings_and_tensors_are_refused) {
    extents const shape{16, 64};
    auto const good = tensors_of(io::add_awq, random_packed(int_grid<4>{}, shape, {1, 32}));
    auto const problem = [&](nlohmann::json const& settings) {
        return failure_message([&] { read(good, shape, settings); });
    };
    EXPECT_EQ(problem(awq_settings()), "");
    EXPECT_EQ(problem({{"quant_method", "AWQ"}, {"w_bit", 4}, {"version", "GEMM"}}), "");
    EXPECT_EQ(problem({{"quant_method", "awq"}, {"version", "gemv"}}),
              "config.json, field 'version': is 'gemv'; only 'gemm' is read");
    EXPECT_EQ(problem({{"quant_method", "awq"}, {"bits", 8}}), "config.json, field 'bits': is 8; only 4 is read");
    auto const refused = [&](std::string const& name, std::string const& what,
                             std::function<void(tensors&)> const& change) {
        expect_refused(good, shape, name, what, change, awq_settings());
    };
    refused("qweight", "must have the shape (64, 2)", [](tensors& t) { t["layer.qweight"].shape = {2, 64}; });
    refused("qzeros", "is missing", [](tensors& t) { t.erase("layer.qzeros"); });
    refused("scales", "not all of the same width", [](tensors& t) {
        t["layer.scales"] = tensor::of(dtype::f32, {3, 16}, std::vector<float>(48, 1.0F));
    });
    refused("scales", "not finite", [](tensors& t) { t["layer.scales"].set(5, std::uint16_t{0x7E00}); });
    expect_survives(good, shape, awq_settings());
}

} // namespace
} // namespace detent::test

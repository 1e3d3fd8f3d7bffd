// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <cmath>
#include <numeric>
#include <vector>

#include <gtest/gtest.h>

#include "detent/core/buffer.hpp"
#include "detent/grid/fp_grid.hpp"
#include "detent/pack/linear.hpp"
#include "detent/simd/code_lanes.hpp"
#include "pack/random_codes.hpp"

namespace {

using namespace detent;

/// Every code of a block, looked up, is the number that the table has for it.
void expect_block_of_numbers(int bits, std::vector<float> const& table, bool consecutive) {
    index_t const n = 8 * simd::lanes;
    auto const codes = test::random_codes(bits, n);
    buffer bytes(128); // as much as may be read
    with_bits(bits, [&]<int Bits> { linear_packing<Bits>::pack(codes.data(), n, bytes.data()); });
    simd::with_table(table.data(), bits, consecutive, false, [&]<class Table>(Table const& kind) {
        using lanes = simd::code_lanes<Table>;
        lanes const block(bytes.data(), bits);
        simd::next_code const next_of(bits);
        for (int part = 0; part < lanes::parts; ++part) {
            simd::ints next = block.part(part);
            for (int j = 0; j < lanes::steps_per_part; ++j, next = next_of(next)) {
                float numbers[simd::lanes];
                kind(next).store_unaligned(numbers);
                for (index_t lane = 0; lane < simd::lanes; ++lane) {
                    index_t const col = 8 * lane + part * lanes::steps_per_part + j;
                    ASSERT_EQ(numbers[lane], table[codes[static_cast<std::size_t>(col)]]) << bits << ", " << col;
                }
            }
        }
    });
}

TEST(code_lanes, numbers_of_a_block_are_those_of_the_table) {
    for (int bits = 1; bits <= 8; ++bits) {
        std::vector<float> table(std::size_t{1} << bits); // exactly as long, so that a sanitizer sees reads past it
        for (std::size_t c = 0; c < table.size(); ++c) {
            table[c] = static_cast<float>(c * c) - 3.5F;
        }
        expect_block_of_numbers(bits, table, false);
        std::iota(table.begin(), table.end(), -100.0F);
        expect_block_of_numbers(bits, table, true);
    }
}

#if defined(__AVX2__)
/// Every number of the grid is found by computing it.
template <Grid G> void expect_computed() {
    std::vector<float> table(std::size_t{1} << G::bits);
    for (std::size_t c = 0; c < table.size(); ++c) {
        table[c] = G{}.decode(static_cast<code>(c));
    }
    int const mantissa = simd::floating_numbers::mantissa_of(table.data(), G::bits);
    ASSERT_EQ(mantissa, G::mantissa_bits);
    simd::floating_numbers const numbers(table.data(), G::bits, mantissa);
    for (std::size_t c = 0; c < table.size(); ++c) {
        for (std::int32_t const above : {0, -1}) { // what the bits above the code are
            auto const bits = static_cast<std::int32_t>(c) | static_cast<std::int32_t>(
                                                                 static_cast<std::uint32_t>(above) << G::bits);
            float number[simd::lanes];
            numbers.scaled(simd::floats(0.0F), simd::floats(3.0F))(simd::ints(bits)).store_unaligned(number);
            if (std::isfinite(table[c])) {
                EXPECT_EQ(number[0], 3 * table[c]) << c;
            }
        }
    }
}

TEST(code_lanes, floating_point_numbers_of_few_bits_are_computed) {
    expect_computed<e4m3>();
    expect_computed<e5m2>();
    expect_computed<fp_grid<2, 3>>();
    expect_computed<fp_grid<3, 2>>();
    expect_computed<fp_grid<3, 4>>();
    expect_computed<fp_grid<2, 5>>();
    expect_computed<fp_grid<4, 1>>();
    float const integers[] = {0, 1, 2, 3, 4, 5, 6, 7};
    EXPECT_EQ(simd::floating_numbers::mantissa_of(integers, 3), -1);
}
#endif

TEST(pick, takes_lanes_of_numbers_and_reads_no_others) {
    for (index_t n = 1; n <= simd::lanes; ++n) {
        std::vector<float> from(static_cast<std::size_t>(n)); // exactly as long, so that a sanitizer sees reads past it
        std::iota(from.begin(), from.end(), 5.0F);
        std::int32_t index[simd::lanes];
        for (index_t lane = 0; lane < simd::lanes; ++lane) {
            index[lane] = static_cast<std::int32_t>((lane * 7 + 3) % n);
        }
        float picked[simd::lanes];
        simd::pick(from.data(), n, simd::ints::load_unaligned(index)).store_unaligned(picked);
        for (index_t lane = 0; lane < simd::lanes; ++lane) {
            EXPECT_EQ(picked[lane], from[static_cast<std::size_t>(index[lane])]);
        }
    }
}

} // namespace

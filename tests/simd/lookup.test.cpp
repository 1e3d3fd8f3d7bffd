// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <numeric>
#include <vector>

#include <gtest/gtest.h>

#include "detent/pack/linear.hpp"
#include "detent/simd/lookup.hpp"
#include "pack/random_codes.hpp"

namespace {

using namespace detent;

TEST(lookup, equals_the_table_at_any_length_and_alignment) {
    for (int bits = 1; bits <= 8; ++bits) {
        std::vector<float> table(std::size_t{1} << bits); // exactly as long, so that a sanitizer sees reads past it
        for (std::size_t c = 0; c < table.size(); ++c) {
            table[c] = static_cast<float>(c * c) - 3.5F;
        }
        for (index_t n = 0; n <= 130; ++n) {
            auto const offset = static_cast<std::size_t>(n % 7);
            auto const codes = test::random_codes(bits, n + static_cast<index_t>(offset));
            std::vector<float> out(codes.size() + 16, -1);
            with_bits(bits, [&]<int Bits> {
                simd::lookup<Bits>(table.data(), codes.data() + offset, n, out.data() + offset);
            });
            for (std::size_t i = 0; i < out.size(); ++i) {
                float const expected = i < offset || i >= codes.size() ? -1 : table[codes[i]];
                ASSERT_EQ(out[i], expected) << bits << " bits, " << n << " codes, at " << i;
            }
        }
    }
}

TEST(lookup, consecutive_numbers_may_be_computed_instead) {
    for (int bits = 1; bits <= 8; ++bits) {
        std::vector<float> table(std::size_t{1} << bits);
        std::iota(table.begin(), table.end(), -100.0F);
        auto const codes = test::random_codes(bits, 67);
        std::vector<float> out(67);
        with_bits(bits, [&]<int Bits> { simd::lookup<Bits>(table.data(), codes.data(), 67, out.data(), true); });
        for (std::size_t i = 0; i < out.size(); ++i) {
            ASSERT_EQ(out[i], table[codes[i]]) << bits << " bits, at " << i;
        }
    }
}

} // namespace

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <gtest/gtest.h>

#include "detent/grid/fp_grid.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/kernel/decode.hpp"
#include "detent/pack/linear.hpp"
#include "kernel/products.hpp"

namespace {

using namespace detent;
using namespace detent::test;

TEST(decode, writes_the_weights_of_a_run) {
    for (int bits = 1; bits <= 8; ++bits) {
        for (per_tile const tile : tiles) {
            with_bits(bits, [&]<int Bits> {
                packed_matrix const w = random_packed(int_grid<Bits>{}, {4, 150}, tile);
                for (index_t const begin : {0, 8, 64, 144}) {
                    for (index_t const n : {index_t{1}, index_t{5}, 150 - begin}) {
                        std::vector<float> out(static_cast<std::size_t>(n) + 1, -7);
                        kernel::decode<Bits>(w.view(), 3, begin, n, out.data());
                        for (index_t i = 0; i < n; ++i) {
                            ASSERT_EQ(out[static_cast<std::size_t>(i)], w.stored_at(3, begin + i)) << begin << ' ' << i;
                        }
                        ASSERT_EQ(out.back(), -7);
                    }
                }
            });
        }
    }
}

TEST(decode, takes_the_longest_run) {
    index_t const n = kernel::longest_run;
    packed_matrix const w = random_packed(e2m1{}, {1, n + 8}, {1, 128});
    std::vector<float> out(static_cast<std::size_t>(n));
    kernel::decode<4>(w.view(), 0, 8, n, out.data());
    for (index_t i = 0; i < n; ++i) {
        ASSERT_EQ(out[static_cast<std::size_t>(i)], w.stored_at(0, 8 + i));
    }
}

} // namespace

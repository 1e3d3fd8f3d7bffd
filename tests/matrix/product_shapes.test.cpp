// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <gtest/gtest.h>

#include "detent/matrix/product_shapes.hpp"
#include "io/failure_message.hpp"

namespace {

using namespace detent;

TEST(product_shapes, what_does_not_fit_is_named) {
    auto const message = [](extents w, extents x, extents y) {
        return failure_message([&] { expect_product(w, x, y); });
    };
    EXPECT_EQ(message({5, 7}, {3, 7}, {3, 5}), "");
    EXPECT_EQ(message({5, 7}, {0, 7}, {0, 5}), "");
    EXPECT_EQ(message({0, 0}, {3, 0}, {3, 0}), "");
    EXPECT_EQ(message({5, 7}, {3, 5}, {3, 5}), "inputs: have 5 features, the weights have 7 columns");
    EXPECT_EQ(message({5, 7}, {3, 7}, {5, 3}), "outputs: are 5 x 3, not 3 x 5");
    EXPECT_EQ(message({5, 7}, {3, 7}, {2, 5}), "outputs: are 2 x 5, not 3 x 5");
    EXPECT_EQ(failure_message([] {
                  expect_features_of({5, 7}, 8);
              }),
              "inputs: have 8 features, the weights have 7 columns");
}

} // namespace

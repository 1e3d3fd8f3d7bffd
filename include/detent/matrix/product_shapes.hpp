// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <string>

#include "detent/core/error.hpp"
#include "detent/core/index.hpp"

namespace detent::inline DETENT_ABI {

/// @throws error unless inputs of so many features fit weights `w` (out, in).
inline void expect_features_of(extents w, index_t features) {
    if (features != w.cols) {
        raise(error("inputs", "have " + std::to_string(features) + " features, the weights have " +
                                  std::to_string(w.cols) + " columns"));
    }
}

/// @throws error, once for a product y = x W^T, unless the shapes of w (out, in), x (token, in) and y (token, out) fit.
inline void expect_product(extents w, extents x, extents y) {
    expect_features_of(w, x.cols);
    if (y != extents{x.rows, w.rows}) {
        raise(error("outputs", "are " + std::to_string(y.rows) + " x " + std::to_string(y.cols) + ", not " +
                                   std::to_string(x.rows) + " x " + std::to_string(w.rows)));
    }
}

} // namespace detent::inline DETENT_ABI

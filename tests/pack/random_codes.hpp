// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <random>
#include <vector>

#include "detent/core/index.hpp"

namespace detent::test {

/// `n` random codes of `bits` bits; the same on every run.
inline std::vector<code> random_codes(int bits, index_t n, unsigned seed = 0) {
    std::mt19937 random(seed + static_cast<unsigned>(1000 * bits + n));
    std::vector<code> codes(static_cast<std::size_t>(n));
    for (code& c : codes) {
        c = static_cast<code>(random() >> 5 & ((1U << bits) - 1));
    }
    return codes;
}

} // namespace detent::test

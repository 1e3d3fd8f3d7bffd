// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstring>
#include <vector>

#include "detent/core/abi.hpp"

namespace detent::inline DETENT_ABI {

/// Whether two tables of numbers are the same, NaN beside NaN too.
inline bool same_bits(std::vector<float> const& a, std::vector<float> const& b) {
    return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

} // namespace detent::inline DETENT_ABI

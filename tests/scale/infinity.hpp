// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <limits>

namespace detent::test {

inline constexpr float infinity = std::numeric_limits<float>::infinity();

} // namespace detent::test

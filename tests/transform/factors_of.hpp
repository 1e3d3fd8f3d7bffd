// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <variant>
#include <vector>

#include <gtest/gtest.h>

#include "detent/matrix/input_map.hpp"

namespace detent::test {

/// The factors of a map that is one diagonal.
inline std::vector<float> factors_of(input_map const& map) {
    EXPECT_EQ(map.steps().size(), 1U);
    return std::get<diagonal>(map.steps().front()).factors;
}

} // namespace detent::test

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <stdexcept>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "detent/core/executor.hpp"

namespace detent::test {

inline void expect_each_once(executor_ref executor) {
    for (index_t const n : {0, 1, 2, 3, 100}) {
        std::vector<std::atomic<int>> calls(static_cast<std::size_t>(n));
        executor.for_each(n, [&](index_t i) { ++calls[static_cast<std::size_t>(i)]; });
        EXPECT_TRUE(std::all_of(calls.begin(), calls.end(), [](auto const& c) { return c == 1; })) << n;
    }
}

inline void expect_exception_reaches_caller(executor_ref executor) {
    auto const fail_at_3 = [](index_t i) {
        if (i == 3) {
            throw std::runtime_error("three");
        }
    };
    try {
        executor.for_each(10, fail_at_3);
        FAIL() << "nothing was thrown";
    } catch (std::runtime_error const& e) {
        EXPECT_EQ(std::string(e.what()), "three");
    }
    expect_each_once(executor); // and the executor still works
}

/// Every iteration fails, and the caller sees one failure.
inline void expect_one_exception_of_many(executor_ref executor) {
    auto const fail = [](index_t i) { throw std::out_of_range(std::to_string(i)); };
    EXPECT_THROW(executor.for_each(50, fail), std::out_of_range);
}

/// A sum whose rounding depends on how it is cut.
inline float sum_of_pieces(executor_ref executor, index_t grain) {
    index_t const n = 10007;
    std::vector<float> sums(static_cast<std::size_t>(ceil_div(n, grain)));
    executor.for_pieces(n, grain, [&](index_t begin, index_t end) {
        float sum = 0;
        for (index_t i = begin; i < end; ++i) {
            sum += std::sin(static_cast<float>(i)) * 1e3F;
        }
        sums[static_cast<std::size_t>(begin / grain)] = sum;
    });
    float total = 0;
    for (float const s : sums) {
        total += s;
    }
    return total;
}

} // namespace detent::test

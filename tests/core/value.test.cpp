// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <memory>
#include <string>

#include <gtest/gtest.h>

#include "detent/core/value.hpp"

namespace {

using detent::Value;

struct policy {
    int number = 1;
    friend bool operator==(policy const&, policy const&) = default;
};
struct not_compared {};
struct not_assigned {
    int const number = 1;
    friend bool operator==(not_assigned const&, not_assigned const&) = default;
};
struct not_made {
    explicit not_made(int) {}
    friend bool operator==(not_made const&, not_made const&) = default;
};

TEST(value, is_made_copied_assigned_and_compared) {
    static_assert(Value<int> && Value<std::string> && Value<policy>);
    static_assert(!Value<not_compared> && !Value<not_assigned> && !Value<not_made>);
    static_assert(!Value<std::unique_ptr<int>>);
}

} // namespace

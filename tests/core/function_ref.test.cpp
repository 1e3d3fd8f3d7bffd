// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <memory>
#include <type_traits>
#include <utility>

#include <gtest/gtest.h>

#include "detent/core/function_ref.hpp"

namespace {

using detent::function_ref;

int twice(int x) { return 2 * x; }

struct accumulator {
    int sum = 0;
    int operator()(int x) { return sum += x; }
};

TEST(function_ref, calls_lambdas_pointers_and_objects) {
    int const offset = 10;
    auto const add = [&](int x) { return x + offset; };
    EXPECT_EQ(function_ref<int(int)>(add)(1), 11);
    auto* const pointer = &twice;
    EXPECT_EQ(function_ref<int(int)>(pointer)(4), 8);
    accumulator a;
    EXPECT_EQ(function_ref<int(int)>(a)(5), 5);
}

TEST(function_ref, refers_and_does_not_copy) {
    accumulator a;
    function_ref<int(int)> const f = a;
    function_ref<int(int)> const copy = f;
    f(1);
    copy(2);
    EXPECT_EQ(a.sum, 3);
}

TEST(function_ref, forwards_references_and_move_only_arguments) {
    int x = 1;
    auto const increment = [](int& i) { ++i; };
    function_ref<void(int&)> const f = increment;
    f(x);
    EXPECT_EQ(x, 2);

    auto const read = [](std::unique_ptr<int> p) { return *p; };
    EXPECT_EQ(function_ref<int(std::unique_ptr<int>)>(read)(std::make_unique<int>(7)), 7);
}

TEST(function_ref, takes_only_what_it_can_call) {
    using f = function_ref<int(int)>;
    static_assert(std::is_constructible_v<f, accumulator&>);
    static_assert(!std::is_constructible_v<f, int>);
    static_assert(!std::is_constructible_v<f, accumulator const&>); // operator() is not const
    static_assert(std::is_trivially_copyable_v<f>);
    static_assert(std::is_constructible_v<function_ref<int(accumulator&)>, int (*)(accumulator&)>);
    static_assert(!std::is_constructible_v<function_ref<int(accumulator&)>, int accumulator::*>);
    static_assert(!std::is_constructible_v<function_ref<int(accumulator&, int)>, int (accumulator::*)(int)>);
}

} // namespace

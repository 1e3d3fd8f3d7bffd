// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <span>
#include <vector>

#include "detent/core/abi.hpp"
#include "detent/io/packed_parts.hpp"

namespace detent::inline DETENT_ABI {

/// Whether each of these is a number of type `T`, to the bit.
template <class T> bool are_numbers_of(std::span<float const> numbers) {
    return std::ranges::all_of(numbers, [](float x) {
        return std::bit_cast<std::uint32_t>(static_cast<float>(static_cast<T>(x))) == std::bit_cast<std::uint32_t>(x);
    });
}

/// The bytes of numbers as elements of type `T`, to which they are rounded where they are none.
template <class T> std::vector<std::uint8_t> bytes_as(std::span<float const> numbers) {
    std::vector<T> stored;
    stored.reserve(numbers.size());
    for (float const x : numbers) {
        stored.push_back(static_cast<T>(x));
    }
    return io::bytes_of(stored);
}

} // namespace detent::inline DETENT_ABI

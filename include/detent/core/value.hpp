// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <concepts>

#include "detent/core/abi.hpp"

namespace detent::inline DETENT_ABI {

/// A type whose objects are made without arguments, copied, assigned and compared, as policies are. It asks what
/// `std::regular` asks in fewer steps: that takes a compiler some fifteen templates for every policy.
template <class T>
concept Value = requires(T a, T const b) {
    T();
    T(b);
    a = b;
    { b == b } -> std::convertible_to<bool>;
};

} // namespace detent::inline DETENT_ABI

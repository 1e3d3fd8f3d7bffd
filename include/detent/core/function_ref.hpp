// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <concepts>
#include <type_traits>
#include <utility>

#include "detent/core/abi.hpp"

namespace detent::inline DETENT_ABI {

template <class Signature> class function_ref;

/// Refers to a callable without owning it (as C++26 `std::function_ref`); it must outlive the reference. What is
/// called with parentheses will do, so pointers to members do not.
template <class R, class... Args> class function_ref<R(Args...)> {
public:
    template <class F>
    requires(!std::same_as<std::remove_cvref_t<F>, function_ref> && std::is_object_v<std::remove_reference_t<F>> &&
             std::is_invocable_r_v<R, F&, Args...> && !std::is_member_pointer_v<std::remove_cvref_t<F>>)
        function_ref(F&& f) // NOLINT: implicit on purpose, an argument type
        : callable_(const_cast<void*>(static_cast<void const*>(&f))), call_([](void* callable, Args... args) -> R {
              return (*static_cast<std::remove_reference_t<F>*>(callable))(std::forward<Args>(args)...);
          }) {}

    R operator()(Args... args) const { return call_(callable_, std::forward<Args>(args)...); }

private:
    void* callable_;
    R (*call_)(void*, Args...);
};

} // namespace detent::inline DETENT_ABI

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "detent/io/gguf_metadata.hpp"

namespace detent::inline DETENT_ABI::io {

/// Whether a value is an integer; a bool is none.
template <class T> inline constexpr bool is_gguf_integer = std::is_integral_v<T> && !std::is_same_v<T, bool>;

DETENT_INLINE void gguf_metadata::add(std::string key, gguf_value value) {
    if (key.empty()) {
        throw error(owner_, "a key of its metadata is empty");
    }
    if (!places_.emplace(key, entries_.size()).second) {
        throw error(subject(key), "is there twice");
    }
    entries_.emplace_back(std::move(key), std::move(value));
}

DETENT_INLINE gguf_value const* gguf_metadata::find(std::string_view key) const {
    auto const found = places_.find(key);
    return found != places_.end() ? &entries_[found->second].second : nullptr;
}

DETENT_INLINE std::int64_t gguf_metadata::integer(std::string_view key) const {
    auto const all =
        std::visit([](auto const& value) { return std::is_scalar_v<std::decay_t<decltype(value)>>; }, at(key))
            ? integers(key)
            : std::vector<std::int64_t>();
    if (all.empty()) {
        throw error(subject(key), "is no integer");
    }
    return all.front();
}

DETENT_INLINE std::vector<std::int64_t> gguf_metadata::integers(std::string_view key) const {
    std::vector<std::int64_t> result;
    auto const append = [&]<class T>(T number) {
        if (std::cmp_greater(number, std::numeric_limits<std::int64_t>::max())) {
            throw error(subject(key), "is beyond 2^63 - 1");
        }
        result.push_back(static_cast<std::int64_t>(number));
    };
    std::visit(
        [&]<class T>(T const& value) {
            if constexpr (is_gguf_integer<T>) {
                append(value);
            } else if constexpr (requires { requires is_gguf_integer<typename T::value_type>; } &&
                                 !std::is_same_v<T, std::string>) {
                for (auto const number : value) {
                    append(number);
                }
            } else {
                throw error(subject(key), "is no integer");
            }
        },
        at(key));
    return result;
}

DETENT_INLINE double gguf_metadata::number(std::string_view key) const {
    return std::visit(
        [&]<class T>(T const& value) -> double {
            if constexpr (std::is_arithmetic_v<T> && !std::is_same_v<T, bool>) {
                return static_cast<double>(value);
            } else {
                throw error(subject(key), "is no number");
            }
        },
        at(key));
}

DETENT_INLINE gguf_value const& gguf_metadata::at(std::string_view key) const {
    auto const* const value = find(key);
    if (value == nullptr) {
        throw error(subject(key), "is missing");
    }
    return *value;
}

DETENT_INLINE std::string gguf_metadata::subject(std::string_view key) const {
    return owner_ + ", key '" + printable(key) + "'";
}

} // namespace detent::inline DETENT_ABI::io

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "detent/core/error.hpp"
#include "detent/core/needs_exceptions.hpp"
#include "detent/io/json.hpp"

namespace detent::inline DETENT_ABI::io {

/// One of several types, or a vector of one of them.
template <class... T> using one_or_many = std::variant<T..., std::vector<T>...>;

/// A value of the metadata of a GGUF file: a number, a string, or an array of them. Arrays of arrays are not read, as
/// in ggml.
using gguf_value = one_or_many<std::uint8_t, std::int8_t, std::uint16_t, std::int16_t, std::uint32_t, std::int32_t,
                               float, bool, std::string, std::uint64_t, std::int64_t, double>;

/// The number of a type of metadata in files: the arrays are number 9, between the others.
inline constexpr std::uint32_t gguf_array_id = 9;
/// How many types of metadata there are beside arrays.
inline constexpr std::size_t gguf_scalar_types = std::variant_size_v<gguf_value> / 2;

/// The number in files of the type at `place` of those of `gguf_value` that are no arrays.
constexpr std::uint32_t gguf_id_of(std::size_t place) {
    return static_cast<std::uint32_t>(place < gguf_array_id ? place : place + 1);
}

/// What a GGUF file says of its model: values under keys, in order.
class gguf_metadata {
public:
    using entry = std::pair<std::string, gguf_value>;

    gguf_metadata() = default;
    /// That of a file or something else, which errors name.
    explicit gguf_metadata(std::string owner) : owner_(std::move(owner)) {}

    /// Adds a value. @throws error when the key is empty or was there before.
    void add(std::string key, gguf_value value);

    /// All keys and values, in order.
    std::vector<entry> const& entries() const { return entries_; }

    bool contains(std::string_view key) const { return find(key) != nullptr; }

    /// The value of a key; null if there is none.
    gguf_value const* find(std::string_view key) const;

    /// The value of a key of that type, such as `get<std::string>("general.architecture")` or
    /// `get<std::vector<std::string>>("tokenizer.ggml.tokens")`. @throws error when it is missing or of another type.
    template <class T> T const& get(std::string_view key) const {
        if (auto const* const value = std::get_if<T>(&at(key))) {
            return *value;
        }
        throw error(subject(key), "is of another type than expected");
    }

    /// An integer of any type. @throws error when it is missing, no integer, or beyond 2^63 - 1.
    std::int64_t integer(std::string_view key) const;

    /// The integers of an array of any type, or one of them, as for something that may differ between layers.
    /// @throws error as `integer` does.
    std::vector<std::int64_t> integers(std::string_view key) const;

    /// A number of any type. @throws error when it is missing or no number.
    double number(std::string_view key) const;

private:
    gguf_value const& at(std::string_view key) const;

    std::string subject(std::string_view key) const;

    std::string owner_ = "GGUF";
    std::vector<entry> entries_;
    std::map<std::string, std::size_t, std::less<>> places_;
};

} // namespace detent::inline DETENT_ABI::io

#if !defined(DETENT_COMPILED)
#include "detent/io/gguf_metadata.ipp" // IWYU pragma: export
#endif

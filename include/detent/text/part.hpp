// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "detent/core/abi.hpp"
#include "detent/core/error.hpp"
#include "detent/text/pattern.hpp"

namespace detent::inline DETENT_ABI::text {

/// A part of tokenizer.json, an object such as the normalizer, and its name for errors. Keeps a reference to the JSON.
/// Every function throws an `error` that names the part and the field where a field is missing or of another kind.
class part {
public:
    /// Throws `error` unless `json` is an object.
    part(nlohmann::json const& json, std::string name);

    std::string const& name() const { return name_; }

    /// The field, or null where it is missing or null.
    nlohmann::json const* find(std::string const& field) const;

    bool flag(std::string const& field, std::optional<bool> missing = std::nullopt) const;
    std::string text(std::string const& field, std::optional<std::string> missing = std::nullopt) const;

    /// A string of one character.
    char32_t character(std::string const& field) const;

    /// An integer from 0 to 2^31 - 1.
    std::int32_t number(std::string const& field) const;

    /// A field that is an object or array; arrays are read by `parts`.
    nlohmann::json const& value(std::string const& field) const;

    /// The objects of a field that is an array, each with a name such as "normalizer, normalizers[1]".
    std::vector<part> parts(std::string const& field) const;

    /// The field `pattern`, {"String": ...} or {"Regex": ...}.
    pattern compiled_pattern() const;

    /// What is wrong with a field.
    error wrong(std::string const& field, std::string const& problem) const;

    /// That the type of this part is none that detent reads.
    error unknown_type() const;

private:
    nlohmann::json const* json_;
    std::string name_;
};

/// Reads a token id: an integer from 0 to 2^31 - 1. Throws `error(subject, ...)`.
std::int32_t token_id_of(nlohmann::json const& json, std::string const& subject);

} // namespace detent::inline DETENT_ABI::text

#if !defined(DETENT_COMPILED)
#include "detent/core/needs_exceptions.hpp"
#include "detent/text/part.ipp" // IWYU pragma: export
#endif

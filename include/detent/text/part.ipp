// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "detent/core/error.hpp"
#include "detent/io/json.hpp"
#include "detent/text/part.hpp"
#include "detent/text/pattern.hpp"
#include "detent/text/utf8.hpp"

namespace detent::inline DETENT_ABI::text {

DETENT_INLINE part::part(nlohmann::json const& json, std::string name) : json_(&json), name_(std::move(name)) {
    if (!json.is_object()) {
        throw error(name_, "is not a JSON object");
    }
}

DETENT_INLINE error part::wrong(std::string const& field, std::string const& problem) const {
    return error(name_ + ", field '" + field + "'", problem);
}

DETENT_INLINE error part::unknown_type() const {
    return error(name_, "is of type '" + io::printable(text("type")) + "', which detent does not read");
}

DETENT_INLINE nlohmann::json const* part::find(std::string const& field) const {
    auto const found = json_->find(field);
    return found == json_->end() || found->is_null() ? nullptr : &*found;
}

DETENT_INLINE nlohmann::json const& part::value(std::string const& field) const {
    auto const* found = find(field);
    return found != nullptr ? *found : throw wrong(field, "is missing");
}

DETENT_INLINE bool part::flag(std::string const& field, std::optional<bool> missing) const {
    if (missing && find(field) == nullptr) {
        return *missing;
    }
    auto const& found = value(field);
    return found.is_boolean() ? found.get<bool>() : throw wrong(field, "is not true or false");
}

DETENT_INLINE std::string part::text(std::string const& field, std::optional<std::string> missing) const {
    if (missing && find(field) == nullptr) {
        return *missing;
    }
    auto const& found = value(field);
    return found.is_string() ? found.get<std::string>() : throw wrong(field, "is not a string");
}

DETENT_INLINE char32_t part::character(std::string const& field) const {
    std::string const found = text(field);
    std::string_view rest = found;
    char32_t const c = rest.empty() ? 0 : take_character(rest);
    return !found.empty() && rest.empty() ? c : throw wrong(field, "is not one character");
}

DETENT_INLINE std::int32_t part::number(std::string const& field) const {
    return token_id_of(value(field), name_ + ", field '" + field + "'");
}

DETENT_INLINE std::vector<part> part::parts(std::string const& field) const {
    auto const& list = value(field);
    if (!list.is_array()) {
        throw wrong(field, "is not an array");
    }
    std::vector<part> result;
    for (std::size_t i = 0; i < list.size(); ++i) {
        result.emplace_back(list[i], name_ + ", " + field + "[" + std::to_string(i) + "]");
    }
    return result;
}

DETENT_INLINE pattern part::compiled_pattern() const {
    part const inner(value("pattern"), name_ + ", pattern");
    if (inner.find("String") != nullptr) {
        return {inner.text("String"), pattern_syntax::literal, name_};
    }
    return {inner.text("Regex"), pattern_syntax::oniguruma, name_};
}

DETENT_INLINE std::int32_t token_id_of(nlohmann::json const& json, std::string const& subject) {
    constexpr std::uint64_t most = std::numeric_limits<std::int32_t>::max();
    if (!json.is_number_integer() || (!json.is_number_unsigned() && json.get<std::int64_t>() < 0) ||
        json.get<std::uint64_t>() > most) {
        throw error(subject,
                    "is " + io::printable(json.dump()) + "; expected an integer from 0 to " + std::to_string(most));
    }
    return static_cast<std::int32_t>(json.get<std::uint64_t>());
}

} // namespace detent::inline DETENT_ABI::text

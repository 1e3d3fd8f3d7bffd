// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cmath>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "detent/core/error.hpp"
#include "detent/core/index.hpp"
#include "detent/io/json.hpp"
#include "detent/model/configuration_fields.hpp"

namespace detent::inline DETENT_ABI {

DETENT_INLINE configuration_fields::configuration_fields(nlohmann::json const& json, std::string file)
    : json_(&json), file_(std::move(file)) {
    if (!json.is_object()) {
        throw error(file_, "is not a JSON object");
    }
}

DETENT_INLINE error configuration_fields::wrong(std::string_view field, std::string const& problem) const {
    return error(file_ + ", field '" + std::string(field) + "'", problem);
}

DETENT_INLINE bool configuration_fields::has(std::string_view field) const {
    read_.emplace(field);
    return json_->contains(std::string(field));
}

DETENT_INLINE nlohmann::json const* configuration_fields::find(std::string_view field) const {
    read_.emplace(field);
    auto const found = json_->find(std::string(field));
    return found == json_->end() || found->is_null() ? nullptr : &*found;
}

DETENT_INLINE std::string configuration_fields::either(std::initializer_list<std::string_view> names) const {
    std::string first;
    for (auto const name : names) {
        auto const* value = find(name);
        if (value != nullptr && first.empty()) {
            first = name;
        } else if (value != nullptr && *value != *find(first)) {
            throw wrong(name, "is " + io::printable(value->dump()) + ", but " + first + ", which means the same, is " +
                                  io::printable(find(first)->dump()));
        }
    }
    return first.empty() ? std::string(*names.begin()) : first;
}

DETENT_INLINE index_t configuration_fields::size(std::string_view field, std::optional<index_t> missing,
                                                 index_t most) const {
    auto const* value = find(field);
    if (value == nullptr) {
        return missing ? *missing : throw wrong(field, "is missing");
    }
    if (!value->is_number_integer() || value->get<double>() < 1 || value->get<double>() > static_cast<double>(most)) {
        throw wrong(field,
                    "is " + io::printable(value->dump()) + "; expected an integer from 1 to " + std::to_string(most));
    }
    return value->get<index_t>();
}

DETENT_INLINE index_t configuration_fields::size_or_none(std::string_view field, index_t missing) const {
    auto const* value = find(field);
    return value != nullptr && *value == 0 ? 0 : value == nullptr ? missing : size(field);
}

DETENT_INLINE std::optional<double> configuration_fields::positive(std::string_view field) const {
    auto const* value = find(field);
    if (value == nullptr) {
        return {};
    }
    if (!value->is_number() || !(value->get<float>() > 0) || !std::isfinite(value->get<float>())) {
        throw wrong(field, "is " + io::printable(value->dump()) + "; expected a positive number");
    }
    return value->get<double>();
}

DETENT_INLINE double configuration_fields::positive(std::string_view field, double missing) const {
    return positive(field).value_or(missing);
}

DETENT_INLINE bool configuration_fields::flag(std::string_view field, bool missing) const {
    auto const* value = find(field);
    if (value != nullptr && !value->is_boolean()) {
        throw wrong(field, "is " + io::printable(value->dump()) + "; expected true or false");
    }
    return value == nullptr ? missing : value->get<bool>();
}

DETENT_INLINE std::string configuration_fields::text(std::string_view field, std::optional<std::string> missing) const {
    auto const* value = find(field);
    if (value == nullptr) {
        return missing ? *missing : throw wrong(field, "is missing");
    }
    if (!value->is_string()) {
        throw wrong(field, "is " + io::printable(value->dump()) + "; expected a string");
    }
    return value->get<std::string>();
}

DETENT_INLINE void configuration_fields::require(std::string_view field, bool supported, bool missing) const {
    if (flag(field, missing) != supported) {
        throw wrong(field, std::string("is ") + (supported ? "false" : "true") + ", which is not supported");
    }
}

DETENT_INLINE void configuration_fields::expect(std::string_view field, nlohmann::json const& supported) const {
    auto const* value = find(field);
    if (value != nullptr && *value != supported) {
        throw wrong(field, "is " + io::printable(value->dump()) + ", which is not supported");
    }
}

DETENT_INLINE std::vector<double> configuration_fields::numbers(std::string_view field, index_t count) const {
    auto const* list = find(field);
    bool good = list != nullptr && list->is_array() && std::ssize(*list) == count;
    std::vector<double> found;
    for (index_t i = 0; good && i < count; ++i) {
        auto const& number = (*list)[static_cast<std::size_t>(i)];
        good = number.is_number() && number.get<double>() > 0 && std::isfinite(number.get<double>());
        found.push_back(good ? number.get<double>() : 0);
    }
    if (!good) {
        throw wrong(field, list == nullptr ? "is missing"
                                           : "is " + io::printable(list->dump()) + "; expected a list of " +
                                                 std::to_string(count) + " positive numbers");
    }
    return found;
}

DETENT_INLINE std::vector<std::string> configuration_fields::words(std::string_view field, index_t count) const {
    std::vector<std::string> found;
    if (auto const* list = find(field)) {
        bool good = list->is_array() && std::ssize(*list) >= count;
        for (index_t i = 0; good && i < count; ++i) {
            auto const& word = (*list)[static_cast<std::size_t>(i)];
            good = word.is_string();
            found.push_back(good ? word.get<std::string>() : "");
        }
        if (!good) {
            throw wrong(field, "is " + io::printable(list->dump()) + "; expected a list of a word for each of the " +
                                   std::to_string(count) + " layers");
        }
    }
    return found;
}

DETENT_INLINE std::vector<index_t> configuration_fields::token_ids(std::string_view field, index_t vocabulary) const {
    std::vector<index_t> ids;
    if (auto const* value = find(field); value != nullptr) {
        auto const list = value->is_array() ? *value : nlohmann::json::array({*value});
        for (auto const& id : list) {
            if (!id.is_number_integer()) {
                throw wrong(field, "holds " + io::printable(id.dump()) + ", which is no token id");
            }
            if (id.get<double>() >= 0 && id.get<double>() < static_cast<double>(vocabulary)) {
                ids.push_back(id.get<index_t>());
            }
        }
    }
    return ids;
}

DETENT_INLINE std::optional<configuration_fields> configuration_fields::object(std::string_view field) const {
    auto const* value = find(field);
    return value == nullptr
               ? std::nullopt
               : std::optional(configuration_fields(*value, file_ + ", field '" + std::string(field) + "'"));
}

DETENT_INLINE void configuration_fields::ignore(std::initializer_list<std::string_view> fields) const {
    read_.insert(fields.begin(), fields.end());
}

DETENT_INLINE void configuration_fields::expect_all_read() const {
    for (auto const& [field, value] : json_->items()) {
        bool const off =
            value.is_null() || value == false || ((value.is_array() || value.is_object()) && value.empty());
        if (!off && !read_.contains(field)) {
            throw wrong(field, "is " + io::printable(value.dump()).substr(0, 100) +
                                   ", which is not understood; it may change what the model computes");
        }
    }
}

} // namespace detent::inline DETENT_ABI

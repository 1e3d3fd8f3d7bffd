// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <array>
#include <cctype>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include <nlohmann/json.hpp>

#include "detent/core/error.hpp"
#include "detent/io/json.hpp"
#include "detent/io/quantization_settings.hpp"

namespace detent::inline DETENT_ABI::io {

DETENT_INLINE quantization_settings::quantization_settings()
    : object_(std::make_shared<nlohmann::json const>(nlohmann::json::object())) {}

DETENT_INLINE quantization_settings::quantization_settings(nlohmann::json object, std::string subject)
    : object_(std::make_shared<nlohmann::json const>(std::move(object))), subject_(std::move(subject)) {
    if (!object_->is_object()) {
        throw error(subject_, "is not an object");
    }
}

DETENT_INLINE quantization_settings quantization_settings::of(std::filesystem::path const& directory) {
    auto const configuration = directory / "config.json";
    auto json = read_json(configuration);
    if (auto const found = json.find("quantization_config"); found != json.end() && !found->is_null()) {
        quantization_settings settings(*found, configuration.string());
        settings.path_ = "quantization_config";
        return settings;
    }
    constexpr std::array<std::pair<char const*, char const*>, 3> files{
        {{"quantize_config.json", "gptq"}, {"quant_config.json", "awq"}, {"hf_quant_config.json", "modelopt"}}};
    for (auto const& [name, method] : files) {
        auto const path = directory / name;
        if (std::error_code ignored; std::filesystem::exists(path, ignored)) {
            auto all = read_json(path);
            bool const nested = all.is_object() && all.contains("quantization");
            quantization_settings settings(nested ? all["quantization"] : std::move(all), path.string());
            settings.path_ = nested ? "quantization" : "";
            settings.default_method_ = method;
            return settings;
        }
    }
    return {};
}

DETENT_INLINE bool quantization_settings::empty() const { return object_->empty(); }

DETENT_INLINE std::string quantization_settings::method() const {
    std::string method = text("quant_method", default_method_);
    if (method.empty() && text("format", "") == "detent") {
        return "detent"; // which names no method so that other programs refuse it
    }
    std::ranges::transform(method, method.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    return method;
}

DETENT_INLINE bool quantization_settings::has(char const* field) const { return find(field) != nullptr; }

DETENT_INLINE error quantization_settings::wrong(std::string const& field, std::string const& problem) const {
    std::string const whole = path_.empty() || field.empty() ? path_ + field : path_ + "." + field;
    return {subject_ + ", field '" + printable(whole) + "'", problem};
}

DETENT_INLINE std::string quantization_settings::text(char const* field, std::string_view missing) const {
    auto const* found = find(field);
    if (found == nullptr) {
        return std::string(missing);
    }
    if (!found->is_string()) {
        throw wrong(field, "is not a text");
    }
    return found->get<std::string>();
}

DETENT_INLINE index_t quantization_settings::integer(char const* field, index_t missing) const {
    auto const* found = find(field);
    if (found == nullptr) {
        return missing;
    }
    if (!found->is_number_integer() || found->get<double>() < -0x1p31 || found->get<double>() > 0x1p31) {
        throw wrong(field, "is not an integer of 32 bits");
    }
    return found->get<index_t>();
}

DETENT_INLINE bool quantization_settings::truth(char const* field, bool missing) const {
    auto const* found = find(field);
    if (found == nullptr) {
        return missing;
    }
    if (!found->is_boolean()) {
        throw wrong(field, "is neither true nor false");
    }
    return found->get<bool>();
}

DETENT_INLINE extents quantization_settings::size(char const* field) const {
    auto const* found = find(field);
    auto const positive = [](nlohmann::json const& n) {
        return n.is_number_integer() && n.get<double>() >= 1 && n.get<double>() < 0x1p31;
    };
    if (found == nullptr || !found->is_array() || found->size() != 2 || !positive((*found)[0]) ||
        !positive((*found)[1])) {
        throw wrong(field, "is not two positive integers");
    }
    return {(*found)[0].get<index_t>(), (*found)[1].get<index_t>()};
}

DETENT_INLINE std::optional<quantization_settings> quantization_settings::object(char const* field) const {
    auto const* found = find(field);
    if (found == nullptr) {
        return {};
    }
    if (!found->is_object()) {
        throw wrong(field, "is not an object");
    }
    quantization_settings inner(*found, subject_);
    inner.path_ = path_.empty() ? field : path_ + "." + field;
    return inner;
}

DETENT_INLINE void quantization_settings::expect(char const* field, std::string_view only) const {
    if (auto const given = text(field, only); given != only) {
        throw wrong(field, "is '" + printable(given) + "'; only '" + std::string(only) + "' is read");
    }
}

DETENT_INLINE nlohmann::json const* quantization_settings::find(char const* field) const {
    auto const found = object_->find(field);
    return found == object_->end() || found->is_null() ? nullptr : &*found;
}

} // namespace detent::inline DETENT_ABI::io

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "detent/core/index.hpp"
#include "detent/io/json.hpp"
#include "detent/model/configuration_fields.hpp"
#include "detent/model/encoder_configuration.hpp"
#include "detent/model/encoder_family.hpp"

namespace detent::inline DETENT_ABI {

/// The types of `known` families that have one.
template <class Configuration>
std::vector<std::string> family_types(std::span<encoder_family<Configuration> const> known) {
    std::vector<std::string> types;
    for (auto const& family : known) {
        if (!family.type.empty()) {
            types.emplace_back(family.type);
        }
    }
    return types;
}

/// Interprets `fields` as the family among `known` does that has this `type`.
template <class Configuration>
Configuration parse_encoder(configuration_fields const& fields, std::string const& type,
                            std::span<encoder_family<Configuration> const> known, std::string const& what) {
    auto const family = std::ranges::find(known, std::string_view(type), &encoder_family<Configuration>::type);
    if (family == known.end()) {
        std::string all;
        for (auto const& name : family_types(known)) {
            all += (all.empty() ? "" : ", ") + name;
        }
        throw fields.wrong("model_type",
                           "is '" + io::printable(type) + "'; supported encoders of " + what + " are " + all);
    }
    Configuration c;
    c.type = type;
    c.names = family->names();
    family->read(fields, c);
    fields.expect_all_read();
    return c;
}

DETENT_INLINE text_encoder_configuration parse_text_encoder(nlohmann::json const& json, std::string const& file) {
    configuration_fields const fields(json, file);
    return parse_encoder(fields, fields.text("model_type"), text_encoder_families(), "text");
}

DETENT_INLINE image_encoder_configuration parse_image_encoder(nlohmann::json const& json, std::string const& file) {
    configuration_fields const fields(json, file);
    bool const plain = fields.find("model_type") == nullptr && fields.find("embed_dim") != nullptr;
    auto const c = parse_encoder(fields, plain ? "" : fields.text("model_type"), image_encoder_families(), "images");
    if (c.image_size % c.patch_size != 0) {
        throw fields.wrong("patch_size", "is " + std::to_string(c.patch_size) + ", which does not divide image_size " +
                                             std::to_string(c.image_size));
    }
    return c;
}

DETENT_INLINE std::vector<float> parse_channels(configuration_fields const& fields, std::string const& field,
                                                index_t channels, bool positive) {
    auto const* list = fields.find(field);
    if (list == nullptr) {
        throw fields.wrong(field, "is missing");
    }
    auto const wrong = [&] {
        return fields.wrong(field, "is " + io::printable(list->dump()) + "; expected " +
                                       (positive ? "a positive number" : "a number") + " for each of the " +
                                       std::to_string(channels) + " channels");
    };
    if (!list->is_array() || static_cast<index_t>(list->size()) != channels) {
        throw wrong();
    }
    std::vector<float> values;
    for (auto const& value : *list) {
        if (!value.is_number() || !std::isfinite(value.get<float>()) || (positive && !(value.get<float>() > 0))) {
            throw wrong();
        }
        values.push_back(value.get<float>());
    }
    return values;
}

DETENT_INLINE void parse_preprocessor(nlohmann::json const& json, std::string const& file,
                                      image_encoder_configuration& c) {
    configuration_fields const fields(json, file);
    fields.require("do_rescale", true, true);
    fields.require("do_normalize", true, true);
    if (double const factor = fields.positive("rescale_factor", 1.0 / 255); std::abs(factor * 255 - 1) > 1e-6) {
        throw fields.wrong("rescale_factor", "is not 1 / 255, which is not supported");
    }
    c.pixel_mean = parse_channels(fields, "image_mean", c.channels, false);
    c.pixel_std = parse_channels(fields, "image_std", c.channels, true);
}

DETENT_INLINE std::vector<std::string> encoder_families() {
    auto types = family_types(text_encoder_families());
    auto const images = family_types(image_encoder_families());
    types.insert(types.end(), images.begin(), images.end());
    return types;
}

} // namespace detent::inline DETENT_ABI

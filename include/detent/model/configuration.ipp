// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "detent/io/json.hpp"
#include "detent/model/configuration.hpp"
#include "detent/model/configuration_fields.hpp"
#include "detent/model/family.hpp"

namespace detent::inline DETENT_ABI {

DETENT_INLINE std::vector<std::string> decoder_families() {
    std::vector<std::string> types;
    for (auto const& family : families()) {
        types.emplace_back(family.type);
    }
    return types;
}

DETENT_INLINE model_configuration parse_configuration(nlohmann::json const& json, std::string const& file) {
    configuration_fields const fields(json, file);
    std::string const type = fields.text("model_type");
    auto const known = families();
    auto const family = std::ranges::find(known, std::string_view(type), &decoder_family::type);
    if (family == known.end()) {
        std::string all;
        for (auto const& name : decoder_families()) {
            all += (all.empty() ? "" : ", ") + name;
        }
        throw fields.wrong("model_type", "is '" + io::printable(type) + "'; supported are " + all);
    }
    model_configuration c;
    c.type = type;
    c.names = family->names();
    family->read(fields, c);
    fields.expect_all_read();
    return c;
}

DETENT_INLINE model_configuration read_configuration(std::filesystem::path const& path) {
    auto c = parse_configuration(io::read_json(path), path.string());
    auto const generation = path.parent_path() / "generation_config.json";
    if (std::filesystem::exists(generation)) {
        auto const json = io::read_json(generation);
        configuration_fields const fields(json, generation.string());
        for (index_t const id : fields.token_ids("eos_token_id", c.vocabulary)) {
            if (std::ranges::count(c.end_of_text, id) == 0) {
                c.end_of_text.push_back(id);
            }
        }
    }
    return c;
}

} // namespace detent::inline DETENT_ABI

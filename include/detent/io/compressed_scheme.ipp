// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "detent/core/error.hpp"
#include "detent/io/compressed_scheme.hpp"
#include "detent/io/json.hpp"

namespace detent::inline DETENT_ABI::io {

/// The strategy that is named or, where none is, follows from the width of groups.
DETENT_INLINE compressed_strategy strategy_of(quantization_settings const& settings) {
    constexpr std::array<std::pair<char const*, compressed_strategy>, 6> strategies{
        {{"tensor", compressed_strategy::tensor},
         {"channel", compressed_strategy::channel},
         {"group", compressed_strategy::group},
         {"tensor_group", compressed_strategy::tensor_group},
         {"block", compressed_strategy::block},
         {"token", compressed_strategy::token}}};
    index_t const group = settings.integer("group_size", 0);
    auto const name = settings.text("strategy", group > 0 ? "group" : group == -1 ? "channel" : "tensor");
    for (auto const& [text, strategy] : strategies) {
        if (name == text) {
            return strategy;
        }
    }
    throw settings.wrong("strategy", "is '" + printable(name) + "', which is not known");
}

DETENT_INLINE compressed_numbers compressed_numbers::of(quantization_settings const& settings) {
    compressed_numbers n;
    auto const type = settings.text("type", "int");
    if (type != "int" && type != "float") {
        throw settings.wrong("type", "is '" + printable(type) + "', but there are 'int' and 'float'");
    }
    n.is_float = type == "float";
    n.bits = static_cast<int>(settings.integer("num_bits", 8));
    if (n.is_float ? n.bits != 4 && n.bits != 8 : n.bits < 1 || n.bits > 8) {
        throw settings.wrong("num_bits", "is " + std::to_string(n.bits) +
                                             (n.is_float ? ", but floats have 4 or 8" : ", but integers have 1 to 8"));
    }
    n.symmetric = settings.truth("symmetric", true);
    if (n.is_float && !n.symmetric) {
        throw settings.wrong("symmetric", "is false, but floats have no zero point");
    }
    n.strategy = strategy_of(settings);
    bool const groups = n.strategy == compressed_strategy::group || n.strategy == compressed_strategy::tensor_group;
    n.group = settings.integer("group_size", 0);
    if (groups && n.group < 1) {
        throw settings.wrong("group_size", "is " + std::to_string(n.group) + ", but there are groups");
    }
    if (n.strategy == compressed_strategy::block) {
        n.block = settings.size("block_structure");
    }
    if (settings.has("actorder")) {
        auto const& order = settings.json().at("actorder");
        auto const text =
            order.is_boolean() ? std::string(order.get<bool>() ? "group" : "weight") : settings.text("actorder", "");
        if (text != "group" && text != "weight" && text != "static" && text != "dynamic") {
            throw settings.wrong("actorder", "is '" + printable(text) + "', which is not known");
        }
        n.reordered = text == "group" || text == "dynamic";
    }
    if (settings.has("dynamic") && settings.json().at("dynamic").is_string()) {
        settings.expect("dynamic", "local");
        n.local_scales = true;
    } else {
        n.dynamic = settings.truth("dynamic", false);
    }
    return n;
}

DETENT_INLINE compressed_schemes::compressed_schemes(quantization_settings const& settings) : settings_(settings) {
    settings.expect("quantization_status", "compressed");
    if (auto const sparse = settings.object("sparsity_config"); sparse && !sparse->empty()) {
        sparse->expect("format", "dense");
    }
    if (auto const moved = settings.object("transform_config"); moved && !moved->empty()) {
        if (auto const groups = moved->object("config_groups"); groups && !groups->empty()) {
            throw settings.wrong("transform_config", "asks for transforms of inputs, which are not read");
        }
    }
    auto const groups = settings.object("config_groups");
    if (!groups || groups->empty()) {
        throw settings.wrong("config_groups", "names no scheme");
    }
    auto const format = settings.text("format", "");
    for (auto const& [name, value] : groups->json().items()) {
        if (!value.is_object()) {
            throw groups->wrong(name, "is not an object; schemes that are only named are not read");
        }
        all_.push_back(read(*groups->object(name.c_str()), format));
    }
}

/// The format that the client chooses for weights where the settings name none.
DETENT_INLINE std::string usual_format(compressed_scheme const& s) {
    if (s.weights.is_float) {
        return s.weights.bits == 8     ? "float-quantized"
               : s.weights.group == 32 ? "mxfp4-pack-quantized"
                                       : "nvfp4-pack-quantized";
    }
    return s.inputs ? "int-quantized" : "pack-quantized";
}

DETENT_INLINE compressed_scheme compressed_schemes::read(quantization_settings const& group,
                                                         std::string const& format) const {
    compressed_scheme s;
    auto const targets = group.json().find("targets");
    if (targets == group.json().end() || !targets->is_array() || targets->empty()) {
        throw group.wrong("targets", "is no list of names");
    }
    for (auto const& target : *targets) {
        if (!target.is_string()) {
            throw group.wrong("targets", "has an element that is not a text");
        }
        auto const text = target.get<std::string>();
        if (text.starts_with("re:")) {
            s.patterns.emplace_back(text.substr(3), group, "targets");
        } else {
            s.targets.push_back(text);
        }
    }
    if (group.has("output_activations")) {
        throw group.wrong("output_activations", "asks for quantized outputs, which are not read");
    }
    auto const weights = group.object("weights");
    if (!weights) {
        throw group.wrong("weights", "is missing; layers of which only the inputs are quantized are not read");
    }
    s.weights = compressed_numbers::of(*weights);
    if (s.weights.dynamic || s.weights.local_scales || s.weights.strategy == compressed_strategy::token) {
        throw weights->wrong("dynamic", "is not for weights");
    }
    if (auto const inputs = group.object("input_activations")) {
        s.inputs = compressed_numbers::of(*inputs);
    }
    s.format = group.text("format", format);
    if (s.format.empty() || s.format == "mixed-precision") {
        s.format = usual_format(s);
    }
    constexpr std::array<char const*, 7> known{"pack-quantized",  "int-quantized",        "naive-quantized",
                                               "float-quantized", "nvfp4-pack-quantized", "mxfp4-pack-quantized",
                                               "mxfp8-quantized"};
    if (std::ranges::find(known, s.format) == known.end()) {
        throw(group.has("format") ? group : settings_)
            .wrong("format", "is '" + printable(s.format) + "', which is not read");
    }
    return s;
}

DETENT_INLINE compressed_scheme const& compressed_schemes::of(std::string const& name) const {
    for (auto const& s : all_) {
        if (std::ranges::find(s.targets, name) != s.targets.end() ||
            std::ranges::any_of(s.patterns, [&](name_pattern const& p) { return p.matches(name); })) {
            return s;
        }
    }
    for (auto const& s : all_) {
        if (std::ranges::any_of(s.targets, [](std::string const& t) { return t.find('.') == std::string::npos; })) {
            return s;
        }
    }
    throw settings_.wrong("config_groups", "has no scheme for layer '" + printable(name) + "'");
}

} // namespace detent::inline DETENT_ABI::io

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <numeric>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "detent/core/error.hpp"
#include "detent/io/json.hpp"
#include "detent/io/layout_gptq.hpp"
#include "detent/io/layout_owq.hpp"
#include "detent/io/name_patterns.hpp"
#include "detent/io/packed_parts.hpp"
#include "detent/pack/gptq.hpp"
#include "detent/pack/repack.hpp"

namespace detent::inline DETENT_ABI::io {

DETENT_INLINE std::string gptq_obstacle(packed_matrix const& w) {
    auto const [out, in] = w.shape();
    if (w.bits != 2 && w.bits != 3 && w.bits != 4 && w.bits != 8) {
        return "it stores 2, 3, 4 or 8 bits, not " + std::to_string(w.bits);
    }
    if (auto const obstacle = integer_obstacle(w); !obstacle.empty()) {
        return obstacle;
    }
    if (!w.weak.empty()) {
        return "it has no weak columns";
    }
    if (w.scales.format != float_format::f16) {
        return "its scales are f16";
    }
    if (!w.map.empty() && w.map.order() == nullptr) {
        return "its inputs are only put in another order";
    }
    if (in % 32 != 0 || out * w.bits % 32 != 0) {
        return "a weight of shape (" + std::to_string(out) + ", " + std::to_string(in) + ") does not fill its words";
    }
    return {};
}

DETENT_INLINE void add_gptq(safetensors_writer& file, std::string const& name, packed_matrix const& w,
                            bool zeros_minus_one) {
    auto const [out, in] = w.shape();
    index_t const groups = w.scales.tiles.cols;
    std::vector<code> zeros(static_cast<std::size_t>(groups * out));   // (group, out)
    std::vector<float> scales(static_cast<std::size_t>(groups * out)); // (group, out)
    for (index_t group = 0; group < groups; ++group) {
        for (index_t row = 0; row < out; ++row) {
            auto const i = static_cast<std::size_t>(group * out + row);
            scales[i] = w.scales.at(row, group).scale;
            zeros[i] = static_cast<code>(zero_code(w, row, group) - (zeros_minus_one ? 1 : 0));
        }
    }
    file.add(name + ".qweight", dtype::i32, {in * w.bits / 32, out}, code_words(w));
    file.add(name + ".qzeros", dtype::i32, {groups, out * w.bits / 32}, linear_bytes(w.bits, {groups, out}, zeros));
    file.add(name + ".scales", dtype::f16, {groups, out}, scale_bytes(scales, float_format::f16));
    file.add(name + ".g_idx", dtype::i32, {in}, bytes_of(groups_of_inputs(w)));
}

DETENT_INLINE int bits_of_words(tensor_reader const& tensors, std::string const& name, extents shape) {
    auto const& words = tensors.at(name + ".qweight").shape;
    index_t const rows = words.empty() ? 0 : words[0];
    // The rows of a tensor without columns may be any number, more than 32 times of which fits.
    int const bits = shape.cols > 0 && rows <= shape.cols ? static_cast<int>(rows * 32 / shape.cols) : 0;
    if (bits < 1 || bits > 8 || shape.cols * bits / 32 != rows || shape.cols * bits % 32 != 0) {
        throw does_not_hold(tensors, name, shape);
    }
    return bits;
}

DETENT_INLINE error does_not_hold(tensor_reader const& tensors, std::string const& name, extents shape) {
    return tensors.wrong(name + ".qweight", "its shape does not hold weights of shape (" + std::to_string(shape.rows) +
                                                ", " + std::to_string(shape.cols) + ")");
}

DETENT_INLINE buffer linear_of_words(int bits, extents shape, std::span<std::uint8_t const> words) {
    return with_bits(bits, [&]<int Bits> {
        buffer codes(linear_packing<Bits>::bytes(shape));
        repack<gptq_packing<Bits>, linear_packing<Bits>>(words.data(), shape, codes.data());
        return codes;
    });
}

/// The group of each input: what `g_idx` says, or consecutive ones of `width`.
DETENT_INLINE std::vector<std::int32_t> read_groups(tensor_reader const& tensors, std::string const& name, index_t in,
                                                    index_t groups, index_t width) {
    std::string const tensor = name + ".g_idx";
    if (tensors.contains(tensor)) {
        auto group_of = tensors.integers<std::int32_t>(tensor, {in});
        for (auto& g : group_of) {
            g += static_cast<std::int32_t>(g < 0 ? groups : 0); // negative indices count from the end
        }
        return group_of;
    }
    width = width == 0 ? in : width < 0 ? ceil_div(in, std::max<index_t>(groups, 1)) : width;
    if (ceil_div(in, width) != groups) {
        throw tensors.wrong(name + ".scales", "has " + std::to_string(groups) + " groups, but " + std::to_string(in) +
                                                  " inputs in groups of " + std::to_string(width) + " are " +
                                                  std::to_string(ceil_div(in, width)));
    }
    std::vector<std::int32_t> group_of;
    for (index_t k = 0; k < in; ++k) {
        group_of.push_back(static_cast<std::int32_t>(k / width));
    }
    return group_of;
}

DETENT_INLINE packed_matrix read_gptq(tensor_reader const& tensors, std::string const& name, extents shape,
                                      gptq_form form) {
    auto const [out, in] = shape;
    int const bits = bits_of_words(tensors, name, shape);
    if (out * bits % 32 != 0) {
        throw does_not_hold(tensors, name, shape);
    }
    auto const& words = tensors.checked_integers<std::uint32_t>(name + ".qweight", {in * bits / 32, out});
    auto const& scales = tensors.at(name + ".scales");
    index_t const groups = scales.shape.empty() ? 0 : scales.shape[0];
    auto const group_of = read_groups(tensors, name, in, groups, form.width);
    auto const scale_values = tensors.floats(name + ".scales", {groups, out});
    auto const& zero_words = tensors.checked_integers<std::uint32_t>(name + ".qzeros", {groups, out * bits / 32});
    packed_matrix w = integer_matrix(bits, shape);
    auto const order = order_of_groups(group_of);
    index_t const width = group_width(group_of, order, groups);
    if (width == 0) {
        throw tensors.wrong(name + ".g_idx", "its groups are not all of the same width");
    }
    w.tile = {1, width};
    w.scales = scale_store(shape, w.tile, float_format_of(scales.type), true);
    if (w.scales.tiles.cols != groups) {
        throw tensors.wrong(name + ".scales", "has " + std::to_string(groups) + " groups, g_idx names " +
                                                  std::to_string(w.scales.tiles.cols));
    }
    auto const zeros = linear_codes(bits, {groups, out}, zero_words.bytes);
    for (index_t row = 0; row < out; ++row) {
        for (index_t group = 0; group < groups; ++group) {
            auto const i = static_cast<std::size_t>(group * out + row);
            int const zero = form.zeros_minus_one ? (zeros[i] + 1) % (1 << bits) : zeros[i]; // 0 was stored as -1
            w.scales.set(row, group, {scale_values[i], static_cast<float>(zero)});
        }
    }
    w.codes = linear_of_words(bits, shape, words.bytes);
    store_in_order(w, order);
    return w;
}

/// What settings say of layers: of all of them, or as overridden for those whose names match.
struct gptq_settings {
    struct exception {
        name_pattern of;
        bool skipped = false; ///< the layer stays float
        quantization_settings changed;
    };

    quantization_settings common;
    std::vector<exception> exceptions; ///< the first that matches counts

    explicit gptq_settings(quantization_settings settings) : common(std::move(settings)) {
        common.expect("pack_dtype", "int32");
        if (common.truth("is_marlin_format", false)) {
            throw common.wrong("is_marlin_format", "is true; Marlin's packing is not read");
        }
        auto const format = version();
        if (format != "gptq" && format != "gptq_v2") {
            throw common.wrong(common.has("checkpoint_format") ? "checkpoint_format" : "format",
                               "is '" + printable(format) + "'; only 'gptq' and 'gptq_v2' are read");
        }
        if (auto const dynamic = common.object("dynamic")) {
            for (auto const& [key, value] : dynamic->json().items()) {
                bool const skipped = key.starts_with("-:");
                std::string const pattern = skipped || key.starts_with("+:") ? key.substr(2) : key;
                auto changed = value.is_object() && !value.empty() ? dynamic->object(key.c_str()) : std::nullopt;
                exceptions.push_back({name_pattern(pattern, *dynamic, key), skipped, changed.value_or(common)});
            }
        }
    }

    std::string version() const { return common.text("checkpoint_format", common.text("format", "gptq")); }

    /// What holds for a layer.
    exception const* find(std::string const& name) const {
        auto const found = std::ranges::find_if(exceptions, [&](exception const& e) { return e.of.matches(name); });
        return found == exceptions.end() ? nullptr : &*found;
    }

    index_t integer(std::string const& name, char const* field, char const* other, index_t missing) const {
        index_t const all = common.integer(field, common.integer(other, missing));
        auto const* changed = find(name);
        return changed != nullptr ? changed->changed.integer(field, all) : all;
    }
};

/// Reads GPTQ's layers, and among them those of OWQ, which have other names of tensors.
class gptq_reader final : public layout_reader {
public:
    gptq_reader(checkpoint const& file, quantization_settings const& settings)
        : layout_reader(file), settings_(settings) {
        for (auto const* field : {"bits", "w_bit"}) {
            if (index_t const bits = settings.integer(field, 4); bits < 1 || bits > 8) {
                throw settings.wrong(field, "is " + std::to_string(bits) + ", but codes have 1 to 8 bits");
            }
        }
    }

    bool contains(std::string const& name) const override { return tensors_.contains(name + ".qweight"); }

    packed_matrix read(std::string const& name, extents shape) const override {
        if (tensors_.contains(name + ".outlieridx")) {
            return read_owq(tensors_, name, shape);
        }
        constexpr index_t unsaid = -2;
        index_t width = settings_.integer(name, "group_size", "q_group_size", unsaid);
        if (width < unsaid || width == 0) {
            throw settings_.common.wrong("group_size", "is " + std::to_string(width) +
                                                           ", but groups are -1, for whole rows, or some inputs wide");
        }
        width += width < 0 ? 1 : 0;
        bool const minus_one = settings_.version() == "gptq";
        auto w = read_gptq(tensors_, name, shape, {.width = width, .zeros_minus_one = minus_one});
        if (index_t const bits = settings_.integer(name, "bits", "w_bit", w.bits); bits != w.bits) {
            throw tensors_.wrong(name + ".qweight", "has codes of " + std::to_string(w.bits) +
                                                        " bits, but the settings say " + std::to_string(bits));
        }
        return w;
    }

private:
    gptq_settings settings_;
};

/// Whether a zero point is 0, which v1 stores as -1.
DETENT_INLINE bool has_zero_at_zero(std::span<layer_to_save const> all) {
    return std::ranges::any_of(all, [](layer_to_save const& l) {
        return l.weight != nullptr && std::ranges::any_of(l.weight->scales.zeros, [](float z) { return z < 1; });
    });
}

DETENT_INLINE nlohmann::json gptq_json(std::span<layer_to_save const> all) {
    nlohmann::json settings{{"quant_method", "gptq"}, {"lm_head", false}, {"pack_dtype", "int32"}};
    settings["checkpoint_format"] = has_zero_at_zero(all) ? "gptq_v2" : "gptq";
    bool symmetric = true, reordered = false;
    index_t width = -1;
    auto skipped = nlohmann::json::object();
    for (auto const& [name, w, input, in_block] : all) {
        if (w == nullptr) {
            if (in_block) {
                skipped["-:" + escaped_name(name) + "$"] = nlohmann::json::object();
            }
            continue;
        }
        symmetric = symmetric && is_symmetric(*w);
        reordered = reordered || !w->map.empty();
        settings["bits"] = w->bits;
        width = w->tile.cols == w->shape().cols ? width : w->tile.cols; // a group may be as wide as some layers' inputs
    }
    settings["group_size"] = width;
    settings["sym"] = symmetric;
    settings["desc_act"] = reordered;
    if (!skipped.empty()) {
        settings["dynamic"] = skipped;
    }
    return settings;
}

DETENT_INLINE std::string same_bits_and_groups(packed_matrix const& first, packed_matrix const& other) {
    bool const whole_rows = other.tile.cols == other.shape().cols && first.tile.cols == first.shape().cols;
    return other.bits != first.bits || (other.tile.cols != first.tile.cols && !whole_rows)
               ? "all of its layers have the same bits and group width"
               : "";
}

DETENT_INLINE std::string no_rounded_inputs(packed_matrix const*, stored_input const&) {
    return "its inputs are not quantized";
}

DETENT_INLINE checkpoint_layout const& gptq_layout() {
    static constexpr checkpoint_layout layout{
        .id = packed_layout::gptq,
        .name = "gptq",
        .title = "GPTQ's",
        .method = "gptq",
        .obstacle = gptq_obstacle,
        .input_obstacle = no_rounded_inputs,
        .pair_obstacle = same_bits_and_groups,
        .settings = gptq_json,
        .add =
            [](safetensors_writer& file, layer_to_save const& layer, nlohmann::json const& settings) {
                add_gptq(file, layer.name, *layer.weight, settings.at("checkpoint_format") == "gptq");
            },
        .open = [](checkpoint const& file, quantization_settings const& settings) -> std::unique_ptr<layout_reader> {
            return std::make_unique<gptq_reader>(file, settings);
        }};
    return layout;
}

} // namespace detent::inline DETENT_ABI::io

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "detent/io/clients.hpp"
#include "detent/io/layout_compressed_tensors.hpp"
#include "detent/io/packed_parts.hpp"
#include "detent/io/packed_tensors.hpp"

namespace detent::inline DETENT_ABI::io {

/// Which zero points a client takes.
enum class zeros_taken { any, none };

/// What a client opens of a layout.
struct opened_form {
    client who;
    packed_layout layout;
    std::string_view format; ///< of compressed-tensors; empty for all others
    std::string_view bits;   ///< digits of all widths
    std::string_view groups; ///< widths between commas, with `0` for whole rows; empty for any
    zeros_taken zeros = zeros_taken::any;
    bool reordered = true;    ///< groups may follow activation order
    bool rounds_input = true; ///< inputs may be rounded
};

/// All that is known. A client opens what one of its rows allows.
inline constexpr std::array opened_forms{
    // llama.cpp's converter makes f16 of what it opens. NVFP4 alone it keeps.
    opened_form{client::llama_cpp, packed_layout::gptq, "", "248", ""},
    opened_form{client::llama_cpp, packed_layout::compressed_tensors, "pack-quantized", "12345678",
                "16,32,64,128,256,512,1024", zeros_taken::any, false},
    opened_form{client::llama_cpp, packed_layout::compressed_tensors, "int-quantized", "8", "0", zeros_taken::none,
                false},
    opened_form{client::llama_cpp, packed_layout::compressed_tensors, "float-quantized", "8", "0"},
    opened_form{client::llama_cpp, packed_layout::compressed_tensors, "nvfp4-pack-quantized", "4", ""},
    // vLLM
    opened_form{client::vllm, packed_layout::gptq, "", "48", "0,32,64,128", zeros_taken::none},
    opened_form{client::vllm, packed_layout::awq, "", "4", "0,32,64,128"},
    opened_form{client::vllm, packed_layout::compressed_tensors, "pack-quantized", "48", "0,32,64,128",
                zeros_taken::any, true, false},
    opened_form{client::vllm, packed_layout::compressed_tensors, "int-quantized", "8", "0", zeros_taken::none, false},
    opened_form{client::vllm, packed_layout::compressed_tensors, "float-quantized", "8", "0"},
    opened_form{client::vllm, packed_layout::compressed_tensors, "nvfp4-pack-quantized", "4", ""},
    opened_form{client::vllm, packed_layout::compressed_tensors, "mxfp4-pack-quantized", "4", ""},
    // transformers, with compressed-tensors or GPTQModel beside it
    opened_form{client::transformers, packed_layout::gptq, "", "2348", ""},
    opened_form{client::transformers, packed_layout::awq, "", "4", ""},
    opened_form{client::transformers, packed_layout::compressed_tensors, "pack-quantized", "12345678", ""},
    opened_form{client::transformers, packed_layout::compressed_tensors, "int-quantized", "8", ""},
    opened_form{client::transformers, packed_layout::compressed_tensors, "float-quantized", "8", ""},
    opened_form{client::transformers, packed_layout::compressed_tensors, "nvfp4-pack-quantized", "4", ""},
    opened_form{client::transformers, packed_layout::compressed_tensors, "mxfp4-pack-quantized", "4", ""},
    // mlx-lm refuses every `g_idx`, which files of GPTQ have here.
    opened_form{client::mlx, packed_layout::awq, "", "4", "32,64,128"},
};

DETENT_INLINE std::optional<client> find_client(std::string_view name) {
    auto const found = std::ranges::find(client_names, name);
    return found == client_names.end() ? std::nullopt
                                       : std::optional(static_cast<client>(found - client_names.begin()));
}

DETENT_INLINE stored_form form_of(packed_layout layout, packed_matrix const& w, stored_input const* input) {
    stored_form form{.layout = layout, .bits = w.bits, .rounds_input = input != nullptr};
    if (layout == packed_layout::compressed_tensors) {
        form.format = compressed_format(w, input != nullptr);
    }
    form.group = w.tile.cols >= w.shape().cols ? 0 : w.tile.cols;
    form.symmetric = integer_offset(w.table) < 0 || is_symmetric(w);
    form.reordered = w.map.order() != nullptr;
    return form;
}

/// Whether `list` names `width` between its commas.
DETENT_INLINE bool names_group(std::string_view list, index_t width) {
    std::string const wanted = "," + std::to_string(width) + ",";
    return list.empty() || ("," + std::string(list) + ",").find(wanted) != std::string::npos;
}

DETENT_INLINE std::string client_obstacle(client who, stored_form const& form) {
    std::string const name(name_of(who));
    std::string closest = name + " does not read " + std::string(layout_of(form.layout).title) + " layout";
    int best = 0;
    for (auto const& o : opened_forms) {
        if (o.who != who || o.layout != form.layout) {
            continue;
        }
        std::array<std::pair<bool, std::string>, 6> const conditions{
            {{o.format.empty() || o.format == form.format, name + " does not read its format '" + form.format + "'"},
             {o.bits.find(std::to_string(form.bits)) != std::string_view::npos,
              name + " does not read it with " + std::to_string(form.bits) + " bits"},
             {names_group(o.groups, form.group),
              name + " does not read it with " +
                  (form.group == 0 ? "scales of whole rows" : "groups of " + std::to_string(form.group))},
             {o.zeros == zeros_taken::any || form.symmetric,
              name + " does not read it with zero points (use int" + std::to_string(form.bits) + "sym)"},
             {o.reordered || !form.reordered, name + " does not read it in activation order"},
             {o.rounds_input || !form.rounds_input, name + " does not read it with rounded inputs"}}};
        int met = 0;
        while (met < 6 && conditions[static_cast<std::size_t>(met)].first) {
            ++met;
        }
        if (met == 6) {
            return {};
        }
        if (met >= best) {
            best = met;
            closest = conditions[static_cast<std::size_t>(met)].second;
        }
    }
    return closest;
}

DETENT_INLINE std::string client_obstacle(client who, model_file file) {
    client const opens = file == model_file::gguf ? client::llama_cpp : client::onnxruntime;
    return who == opens ? "" : std::string(name_of(who)) + " does not read " + std::string(name_of(file));
}

/// The clients for whom `obstacle` is empty.
template <class Obstacle> std::vector<client> clients_without(Obstacle const& obstacle) {
    std::vector<client> all;
    for (std::size_t i = 0; i < client_names.size(); ++i) {
        if (obstacle(static_cast<client>(i)).empty()) {
            all.push_back(static_cast<client>(i));
        }
    }
    return all;
}

DETENT_INLINE std::vector<client> clients_of(std::span<stored_form const> forms) {
    return clients_without([&](client who) {
        bool const opens_some = std::ranges::any_of(opened_forms, [&](auto const& o) { return o.who == who; });
        std::string obstacle = opens_some ? "" : "no checkpoint is opened, not even of floats";
        for (auto const& form : forms) {
            obstacle = obstacle.empty() ? client_obstacle(who, form) : obstacle;
        }
        return obstacle;
    });
}

DETENT_INLINE std::vector<client> clients_of(model_file file) {
    return clients_without([&](client who) { return client_obstacle(who, file); });
}

} // namespace detent::inline DETENT_ABI::io

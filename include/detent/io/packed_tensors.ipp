// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <array>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "detent/core/error.hpp"
#include "detent/io/json.hpp"
#include "detent/io/layout_awq.hpp"
#include "detent/io/layout_compressed_tensors.hpp"
#include "detent/io/layout_detent.hpp"
#include "detent/io/layout_fp8.hpp"
#include "detent/io/layout_gptq.hpp"
#include "detent/io/layout_modelopt.hpp"
#include "detent/io/layout_mxfp4.hpp"
#include "detent/io/layout_owq.hpp"
#include "detent/io/packed_tensors.hpp"

namespace detent::inline DETENT_ABI::io {

DETENT_INLINE std::optional<stored_input> layout_reader::input(std::string const& name, index_t) const {
    for (auto const end : input_tensors) {
        if (auto const tensor = name + std::string(end); tensors_.contains(tensor)) {
            throw tensors_.wrong(tensor, "is there, but the settings in config.json are not those of detent's layout");
        }
    }
    return {};
}

DETENT_INLINE std::optional<packed_matrix> layout_reader::read_expert(std::string const&, index_t, index_t,
                                                                      extents) const {
    return {};
}

DETENT_INLINE bool layout_reader::is_extra(std::string const&) const { return false; }

/// Reads a checkpoint without settings, where nothing is packed.
class no_reader final : public layout_reader {
public:
    explicit no_reader(checkpoint const& file) : layout_reader(file) {
        for (auto const& name : file.names()) {
            for (std::string_view const end : {".qweight", ".weight_packed", ".codes", "proj_blocks"}) {
                if (name.ends_with(end)) {
                    throw tensors_.wrong(name, "is packed, but neither config.json nor quantize_config.json says how");
                }
            }
        }
    }

    bool contains(std::string const&) const override { return false; }

    packed_matrix read(std::string const& name, extents) const override { throw tensors_.wrong(name, "is not packed"); }
};

DETENT_INLINE std::span<checkpoint_layout const* const> layouts() {
    static std::array<checkpoint_layout const*, 8> const all{
        &gptq_layout(),     &owq_layout(), &awq_layout(),   &compressed_tensors_layout(),
        &modelopt_layout(), &fp8_layout(), &mxfp4_layout(), &detent_layout()};
    return all;
}

DETENT_INLINE checkpoint_layout const& layout_of(packed_layout id) {
    return **std::ranges::find(layouts(), id, &checkpoint_layout::id);
}

DETENT_INLINE checkpoint_layout const* find_layout(std::string_view name) {
    auto const found = std::ranges::find(layouts(), name, &checkpoint_layout::name);
    return found == layouts().end() ? nullptr : *found;
}

DETENT_INLINE packed_reader::packed_reader(checkpoint const& file, quantization_settings const& settings) {
    if (settings.empty()) {
        reader_ = std::make_unique<no_reader>(file);
        return;
    }
    std::string method = settings.method();
    if (method.starts_with("modelopt_")) { // its algorithms have names of their own, which tensors tell too
        method = "modelopt";
    }
    auto const found = std::ranges::find(layouts(), method, &checkpoint_layout::method);
    if (found == layouts().end()) {
        throw settings.wrong("quant_method", "is '" + printable(method) + "', which is not supported");
    }
    reader_ = (*found)->open(file, settings);
}

} // namespace detent::inline DETENT_ABI::io

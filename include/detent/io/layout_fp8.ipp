// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <memory>
#include <string>

#include <nlohmann/json.hpp>

#include "detent/core/error.hpp"
#include "detent/io/float_codes.hpp"
#include "detent/io/layout_fp8.hpp"

namespace detent::inline DETENT_ABI::io {

/// Reads E4M3 with scales of blocks.
class fp8_reader final : public layout_reader {
public:
    fp8_reader(checkpoint const& file, quantization_settings const& settings) : layout_reader(file) {
        for (auto const* field : {"fmt", "weight_format"}) {
            if (settings.has(field) && settings.text(field, "") != "float8_e4m3fn") {
                settings.expect(field, "e4m3");
            }
        }
        if (settings.has("weight_block_size")) {
            block_ = settings.size("weight_block_size");
        }
        auto const inputs = settings.text("activation_scheme", "dynamic");
        if (inputs != "dynamic" && inputs != "static") {
            throw settings.wrong("activation_scheme", "is neither 'dynamic' nor 'static'");
        }
        warnings_.push_back("programs may round the inputs of these layers to E4M3 too (activation_scheme '" + inputs +
                            "'); here they stay as they are");
    }

    bool contains(std::string const& name) const override {
        std::string const weight = name + ".weight";
        return tensors_.contains(weight) && tensors_.at(weight).type == dtype::f8_e4m3;
    }

    packed_matrix read(std::string const& name, extents shape) const override {
        auto w = read_fp8(tensors_, name + ".weight", shape);
        std::string const blocks = name + ".weight_scale_inv", whole = name + ".weight_scale";
        if (tensors_.contains(blocks)) { // which multiplies in spite of its name
            w.tile = {std::min(block_.rows, shape.rows), std::min(block_.cols, shape.cols)};
            read_scales(tensors_, blocks, w);
        } else {
            w.tile = tensors_.at(whole).size() == 1 ? shape : extents{1, shape.cols};
            read_scales(tensors_, whole, w);
        }
        return w;
    }

    bool is_extra(std::string const& tensor) const override { return is_cache_scale(tensor); }

private:
    extents block_{128, 128};
};

DETENT_INLINE checkpoint_layout const& fp8_layout() {
    static constexpr checkpoint_layout layout{
        .id = packed_layout::fp8,
        .name = "fp8",
        .title = "the FP8",
        .method = "fp8",
        .open = [](checkpoint const& file, quantization_settings const& settings) -> std::unique_ptr<layout_reader> {
            return std::make_unique<fp8_reader>(file, settings);
        }};
    return layout;
}

} // namespace detent::inline DETENT_ABI::io

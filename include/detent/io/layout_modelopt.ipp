// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <memory>
#include <optional>
#include <string>

#include "detent/core/error.hpp"
#include "detent/io/float_codes.hpp"
#include "detent/io/json.hpp"
#include "detent/io/layout_modelopt.hpp"

namespace detent::inline DETENT_ABI::io {

/// Reads ModelOpt's layers: each says by its type what it is.
class modelopt_reader final : public layout_reader {
public:
    modelopt_reader(checkpoint const& file, quantization_settings const& settings) : layout_reader(file) {
        auto const algorithm = settings.text("quant_algo", "");
        if (!algorithm.empty() && algorithm != "FP8" && algorithm != "NVFP4" && algorithm != "MIXED_PRECISION") {
            throw settings.wrong("quant_algo", "is '" + printable(algorithm) + "'; only 'FP8' and 'NVFP4' are read");
        }
        group_ = settings.integer("group_size", 16);
        if (group_ < 1) {
            throw settings.wrong("group_size", "is " + std::to_string(group_) + ", but groups are some inputs wide");
        }
        if (settings.has("kv_cache_quant_algo") || settings.has("kv_cache_scheme")) {
            warnings_.push_back("the settings ask for a quantized KV cache, which is not followed");
        }
    }

    bool contains(std::string const& name) const override {
        std::string const weight = name + ".weight";
        return tensors_.contains(weight) && bit_size(tensors_.at(weight).type) == 8;
    }

    packed_matrix read(std::string const& name, extents shape) const override {
        std::string const weight = name + ".weight", second = name + ".weight_scale_2";
        bool const fp4 = tensors_.at(weight).type == dtype::u8;
        auto w = fp4 ? read_fp4(tensors_, weight, shape) : read_fp8(tensors_, weight, shape);
        auto const& scales = tensors_.at(name + ".weight_scale");
        bool const of_rows = scales.size() > 1 && !scales.shape.empty() && scales.size() == shape.rows;
        w.tile = fp4 ? extents{1, group_} : of_rows ? extents{1, shape.cols} : shape;
        read_scales(tensors_, name + ".weight_scale", w, fp4 ? tensors_.unit(second, tensors_.number(second)) : 1);
        return w;
    }

    std::optional<stored_input> input(std::string const& name, index_t) const override {
        std::string const tensor = name + ".input_scale";
        if (!contains(name) || !tensors_.contains(tensor)) {
            return {};
        }
        float const scale = tensors_.number(tensor);
        if (!(scale > 0)) {
            throw tensors_.wrong(tensor, "holds a scale that is not positive");
        }
        if (tensors_.at(name + ".weight").type == dtype::u8) {
            return stored_input{.grid = "e2m1", .width = group_, .kind = scale_kind::ue4m3, .unit = scale};
        }
        return stored_input{.grid = "ocp-e4m3", .scales = {scale}};
    }

    bool is_extra(std::string const& tensor) const override { return is_cache_scale(tensor); }

private:
    index_t group_ = 16;
};

DETENT_INLINE checkpoint_layout const& modelopt_layout() {
    static constexpr checkpoint_layout layout{
        .id = packed_layout::modelopt,
        .name = "modelopt",
        .title = "ModelOpt's",
        .method = "modelopt",
        .open = [](checkpoint const& file, quantization_settings const& settings) -> std::unique_ptr<layout_reader> {
            return std::make_unique<modelopt_reader>(file, settings);
        }};
    return layout;
}

} // namespace detent::inline DETENT_ABI::io

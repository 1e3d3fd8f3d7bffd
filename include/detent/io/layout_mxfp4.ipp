// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "detent/core/error.hpp"
#include "detent/io/float_codes.hpp"
#include "detent/io/layout_mxfp4.hpp"

namespace detent::inline DETENT_ABI::io {

/// Reads the tensors `_blocks` and `_scales` of all experts of a layer.
class mxfp4_reader final : public layout_reader {
public:
    using layout_reader::layout_reader;

    bool contains(std::string const&) const override { return false; }

    packed_matrix read(std::string const& name, extents) const override { throw tensors_.wrong(name, "is missing"); }

    std::optional<packed_matrix> read_expert(std::string const& name, index_t experts, index_t expert,
                                             extents shape) const override {
        std::string const blocks = name + "_blocks", scales = name + "_scales";
        if (!tensors_.contains(blocks)) {
            return {};
        }
        auto const [out, in] = shape;
        if (in % 32 != 0) {
            throw tensors_.wrong(blocks, "holds blocks of 32 inputs, but there are " + std::to_string(in));
        }
        auto const& codes = tensors_.checked_integers<std::uint8_t>(blocks, {experts, out, in / 32, 16});
        auto const& powers = tensors_.checked_integers<std::uint8_t>(scales, {experts, out, in / 32});
        auto const mine = [&](tensor_view const& t) {
            std::size_t const size = t.bytes.size() / static_cast<std::size_t>(experts);
            return t.bytes.subspan(static_cast<std::size_t>(expert) * size, size);
        };
        packed_matrix w = fp4_matrix(shape, mine(codes));
        w.tile = {1, 32};
        w.scales = scale_store(shape, w.tile, scale_kind::e8m0, false);
        std::ranges::transform(mine(powers), w.scales.scales.begin(),
                               [&](std::uint8_t byte) { return scale_of(w.scales.format, byte); });
        if (std::ranges::any_of(w.scales.scales, [](float s) { return std::isnan(s); })) {
            throw tensors_.wrong(scales, "holds a scale that is no positive number");
        }
        return w;
    }
};

DETENT_INLINE checkpoint_layout const& mxfp4_layout() {
    static constexpr checkpoint_layout layout{
        .id = packed_layout::mxfp4,
        .name = "mxfp4",
        .title = "the MXFP4",
        .method = "mxfp4",
        .open = [](checkpoint const& file, quantization_settings const&) -> std::unique_ptr<layout_reader> {
            return std::make_unique<mxfp4_reader>(file);
        }};
    return layout;
}

} // namespace detent::inline DETENT_ABI::io

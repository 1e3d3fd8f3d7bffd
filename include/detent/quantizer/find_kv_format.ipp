// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include "detent/core/error.hpp"
#include "detent/quantizer/find_kv_format.hpp"
#include "detent/quantizer/named_grid.hpp"

namespace detent::inline DETENT_ABI {

DETENT_INLINE kv_format find_kv_format(std::string_view name) {
    for (auto const& [word, floats] : {std::pair{"float", float_format::f32}, std::pair{"f32", float_format::f32},
                                       std::pair{"f16", float_format::f16}, std::pair{"bf16", float_format::bf16}}) {
        if (name == word) {
            return {.floats = floats};
        }
    }
    std::size_t const colon = std::min(name.find(':'), name.size());
    any_grid grid = find_grid(grid_name::parse(name.substr(0, colon)));
    index_t group = grid.bits() <= 4 ? 16 : 0;
    if (colon < name.size()) {
        auto const part = name.substr(colon + 1);
        auto const* const end = part.data() + part.size();
        auto const read = std::from_chars(part.data() + part.starts_with('g'), end, group);
        if (!part.starts_with('g') || read.ec != std::errc() || read.ptr != end || group < 0) {
            raise(error("cache format '" + std::string(name) + "'",
                        "has '" + std::string(part) + "' where g and a number of channels may be"));
        }
    }
    bool const coarse = grid.bits() <= 4;
    kv_format format = kv_format::of(std::move(grid), group);
    format.centered = coarse;
    return format;
}

} // namespace detent::inline DETENT_ABI

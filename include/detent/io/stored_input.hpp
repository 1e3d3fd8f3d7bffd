// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "detent/core/index.hpp"
#include "detent/scale/scale_format.hpp"

namespace detent::inline DETENT_ABI::io {

/// How a layer's input is rounded, as files say it.
struct stored_input {
    std::string grid;               ///< its name
    std::vector<float> scales = {}; ///< of each group of inputs, the same for all tokens; empty where tokens get theirs
    std::vector<float> zeros = {};  ///< the zero points beside these scales; empty for grids without
    std::vector<std::int8_t> shifts = {}; ///< of each input; empty for none
    index_t width = 0;                    ///< consecutive inputs that share a scale, 0 for all; the last may be fewer
    scale_kind kind = scale_kind::f32;    ///< how the scales that tokens get are stored
    std::optional<float> unit = {};       ///< of E4M3 scales; none where tokens have their own

    /// Scales of a token of `in` inputs.
    index_t groups(index_t in) const { return width == 0 || in == 0 ? 1 : ceil_div(in, width); }
};

} // namespace detent::inline DETENT_ABI::io

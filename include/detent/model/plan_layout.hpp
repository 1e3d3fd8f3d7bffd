// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "detent/core/error.hpp"
#include "detent/core/needs_exceptions.hpp"
#include "detent/io/clients.hpp"
#include "detent/io/layout.hpp"
#include "detent/quantizer/spec.hpp"

// What a specification makes of a model, as far as layouts and clients care: known before any work, without weights.

namespace detent::inline DETENT_ABI {

/// A layer that is to be quantized.
struct planned_layer {
    std::string name;
    extents shape;            ///< (out, in)
    std::string part_of = {}; ///< the tensor of the source that it shares with others; empty for none
};

/// A matrix as a specification makes one: grid, tiles, formats, the kind of map, and whether there are zero points or
/// weak columns; without codes, and scales only where a layout looks at them.
packed_matrix sketch(spec const& s, extents shape);

/// How a specification rounds inputs; nothing where it does not. Scales of all tokens stand as 1.
std::optional<io::stored_input> sketch_input(spec const& s, index_t in);

/// What a layout cannot hold of layers that are quantized as `s` says: an error that names the first of them. Nothing
/// when it can hold them, but for what only their weights tell, such as a zero point of 0 (GPTQ's v1).
std::optional<error> layout_obstacle(spec const& s, io::packed_layout layout, std::span<planned_layer const> layers);

/// Why a client does not open layers that are quantized as `s` says in a layout that can hold them: the first reason;
/// empty when it opens all.
std::string client_obstacle(io::client who, spec const& s, io::packed_layout layout,
                            std::span<planned_layer const> layers);

} // namespace detent::inline DETENT_ABI

#if !defined(DETENT_COMPILED)
#include "detent/model/plan_layout.ipp" // IWYU pragma: export
#endif

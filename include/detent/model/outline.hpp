// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <functional>
#include <string>

#include "detent/core/needs_exceptions.hpp"
#include "detent/matrix/packed_matrix.hpp"
#include "detent/model/configuration.hpp"
#include "detent/model/decoder.hpp"
#include "detent/quantizer/spec.hpp"

// What a quantized model will be, known before there is a weight: for sizes, and for what layouts cannot hold.
namespace detent::inline DETENT_ABI {

/// A packed matrix as `s` makes it for weights of `shape` (out, in), with `s.weak.columns` weak columns, but without
/// codes and scales: bits, numbers, tiles, the format of scales and `bits_per_weight` are those of the real one. Where
/// that has zero points, it has one, 1, or 0.5 where they need not be integers; where that maps inputs, it has a map of
/// as many steps of the same kinds.
/// @throws error when there is no such grid.
packed_matrix outline(spec const& s, extents shape);

/// The decoder that `c` describes, with the layers that `s` quantizes as outlines, biases and input quantizers among
/// them; other weights take address space but are never written. `contains` tells which tensors the checkpoint has,
/// which makes a difference for experts that share tensors. It cannot run. @throws error when `s` is impossible for it.
decoder outline_decoder(
    model_configuration const& c, spec const& s,
    std::function<bool(std::string const&)> const& contains = [](std::string const&) { return false; });

} // namespace detent::inline DETENT_ABI

#if !defined(DETENT_COMPILED)
#include "detent/model/outline.ipp" // IWYU pragma: export
#endif

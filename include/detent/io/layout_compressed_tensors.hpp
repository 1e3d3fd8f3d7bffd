// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <string>

#include "detent/core/needs_exceptions.hpp"
#include "detent/io/compressed_scheme.hpp"
#include "detent/io/layout.hpp"
#include "detent/io/tensor_reader.hpp"
#include "detent/matrix/packed_matrix.hpp"

namespace detent::inline DETENT_ABI::io {

/// Which of the formats of compressed-tensors holds `w`, such as `pack-quantized`; empty for none.
std::string compressed_format(packed_matrix const& w, bool rounds_input);

/// Why compressed-tensors cannot hold `w`; empty when it can.
std::string compressed_obstacle(packed_matrix const& w);

/// Why compressed-tensors cannot say that the input of a layer of weight `w` (null: float) is rounded so; empty when
/// it can.
std::string compressed_input_obstacle(packed_matrix const* w, stored_input const& input);

/// Adds the tensors of a layer. It has no obstacles.
void add_compressed(safetensors_writer& file, layer_to_save const& layer);

/// Reads layer `name`, stored as `scheme` says.
packed_matrix read_compressed(tensor_reader const& tensors, std::string const& name, extents shape,
                              compressed_scheme const& scheme);

/// The layout of compressed-tensors, each layer in the format that holds it.
checkpoint_layout const& compressed_tensors_layout();

} // namespace detent::inline DETENT_ABI::io

#if !defined(DETENT_COMPILED)
#include "detent/io/layout_compressed_tensors.ipp" // IWYU pragma: export
#endif

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <optional>
#include <string>

#include "detent/core/needs_exceptions.hpp"
#include "detent/io/layout.hpp"
#include "detent/io/stored_input.hpp"
#include "detent/io/tensor_reader.hpp"
#include "detent/matrix/packed_matrix.hpp"

namespace detent::inline DETENT_ABI::io {

/// Adds a tensor for each step of what happens to the inputs of layer `name`, numbered from 0.
void add_map(safetensors_writer& file, std::string const& name, input_map const& map);

/// Adds the tensors of layer `name` in detent's own layout, which holds any packed matrix; it borrows the codes and
/// weak columns.
void add_packed(safetensors_writer& file, std::string const& name, packed_matrix const& w);

/// Adds the tensors that say how the input of layer `name` is rounded.
void add_input(safetensors_writer& file, std::string const& name, stored_input const& input);

/// Reads layer `name`.
packed_matrix read_detent(tensor_reader const& tensors, std::string const& name, extents shape);

/// How the input of layer `name`, `in` numbers wide, is rounded; nothing where it is not. Scales are positive and
/// finite, zero points finite, shifts are 0 to 15; whether there is such a grid is not looked at. @throws error when a
/// tensor lacks another that it needs, has another shape or makes no sense.
std::optional<stored_input> read_input(tensor_reader const& tensors, std::string const& name, index_t in);

/// detent's own layout, which holds all that the library makes.
checkpoint_layout const& detent_layout();

} // namespace detent::inline DETENT_ABI::io

#if !defined(DETENT_COMPILED)
#include "detent/io/layout_detent.ipp" // IWYU pragma: export
#endif

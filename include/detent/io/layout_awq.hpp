// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <string>

#include "detent/core/needs_exceptions.hpp"
#include "detent/io/layout.hpp"
#include "detent/io/tensor_reader.hpp"
#include "detent/matrix/packed_matrix.hpp"

namespace detent::inline DETENT_ABI::io {

/// Why AWQ's layout cannot hold `w`; empty when it can.
std::string awq_obstacle(packed_matrix const& w);

/// Adds the tensors of layer `name` in AWQ's layout. `w` has no `awq_obstacle`.
void add_awq(safetensors_writer& file, std::string const& name, packed_matrix const& w);

/// Reads layer `name`.
packed_matrix read_awq(tensor_reader const& tensors, std::string const& name, extents shape);

/// AutoAWQ's version "gemm": 4 bits, zero points as they are.
checkpoint_layout const& awq_layout();

} // namespace detent::inline DETENT_ABI::io

#if !defined(DETENT_COMPILED)
#include "detent/io/layout_awq.ipp" // IWYU pragma: export
#endif

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <string>

#include "detent/core/needs_exceptions.hpp"
#include "detent/io/layout.hpp"
#include "detent/io/tensor_reader.hpp"
#include "detent/matrix/packed_matrix.hpp"

namespace detent::inline DETENT_ABI::io {

/// Why OWQ's layout cannot hold `w`; empty when it can.
std::string owq_obstacle(packed_matrix const& w);

/// Adds the tensors of layer `name` in OWQ's layout; it borrows the weak columns. `w` has no `owq_obstacle`.
void add_owq(safetensors_writer& file, std::string const& name, packed_matrix const& w);

/// Reads layer `name`.
packed_matrix read_owq(tensor_reader const& tensors, std::string const& name, extents shape);

/// Reads the weak columns of `w`, which has its codes, from the tensors `positions` and `numbers`, where they are
/// there. Those of old files of OWQ `may_be_transposed`. Errors about codes name `codes`.
void read_weak(tensor_reader const& tensors, packed_matrix& w, std::string const& positions, std::string const& numbers,
               std::string const& codes, bool may_be_transposed);

/// OWQ's layout: codes and scales of whole rows, and weak columns.
checkpoint_layout const& owq_layout();

} // namespace detent::inline DETENT_ABI::io

#if !defined(DETENT_COMPILED)
#include "detent/io/layout_owq.ipp" // IWYU pragma: export
#endif

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <span>

#include "detent/core/index.hpp"
#include "detent/core/needs_exceptions.hpp"
#include "detent/matrix/packed_matrix.hpp"

namespace detent::inline DETENT_ABI::io {

/// The matrix whose row r is row `order[r]` of `w`, as files have it that store the outputs of a layer in another
/// order.
/// @throws error when rows share scales, or `order` does not have each row once.
packed_matrix move_rows(packed_matrix const& w, std::span<index_t const> order);

} // namespace detent::inline DETENT_ABI::io

#if !defined(DETENT_COMPILED)
#include "detent/io/row_order.ipp" // IWYU pragma: export
#endif

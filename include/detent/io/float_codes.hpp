// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "detent/core/needs_exceptions.hpp"
#include "detent/io/tensor_reader.hpp"
#include "detent/matrix/packed_matrix.hpp"

// Matrices of numbers of 4 or 8 bits, as several programs store them: E2M1 two in a byte, E4M3 one.

namespace detent::inline DETENT_ABI::io {

/// A matrix of E2M1 from `bytes`, which have the even input of two in the low bits, still without scales.
packed_matrix fp4_matrix(extents shape, std::span<std::uint8_t const> bytes);

/// Reads a matrix of E2M1 from a U8 tensor (out, in / 2), still without scales.
packed_matrix read_fp4(tensor_reader const& tensors, std::string const& tensor, extents shape);

/// Reads a matrix of E4M3 from an F8_E4M3 tensor (out, in), still without scales. @throws error where a code is NaN.
packed_matrix read_fp8(tensor_reader const& tensors, std::string const& tensor, extents shape);

/// Reads the scales of the tiles of `w`: (tile rows, tile columns), without the columns where there is one, and of any
/// shape where there is one scale. Those of type F8_E4M3 are in units of `unit`; U8 and F8_E8M0 are powers of two. A
/// scale of E4M3 that is 0, as for tiles that are, becomes the smallest one and the codes 0.
void read_scales(tensor_reader const& tensors, std::string const& tensor, packed_matrix& w, float unit = 1);

} // namespace detent::inline DETENT_ABI::io

#if !defined(DETENT_COMPILED)
#include "detent/io/float_codes.ipp" // IWYU pragma: export
#endif

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <filesystem>
#include <string>

#include "detent/core/needs_exceptions.hpp"
#include "detent/io/onnx_writer.hpp"
#include "detent/matrix/packed_matrix.hpp"

// Packed matrices as ONNX Runtime multiplies with them: its operator MatMulNBits of the domain "com.microsoft".
namespace detent::inline DETENT_ABI::io {

/// Why ONNX Runtime's operator cannot hold a matrix to the bit, as the end of a sentence; empty when it can. It asks
/// for integers of 2, 4 or 8 bits and for scales of one row, or of several, and of a power of two of inputs, 16 or
/// more, or a multiple of such, or of all. Codes and scales are not looked at.
std::string matmul_nbits_obstacle(packed_matrix const& w);

/// The inputs that share a scale in the operator: the most of 16 to 256 that divide a tile of `w`, which has no
/// obstacle.
index_t matmul_nbits_block(packed_matrix const& w);

/// Adds what makes `input` (..., in) the product with `w` (out, in), and answers its name: the steps of its map as
/// plain operators, the product, which computes with floats, and what weak columns add. Tensors are called
/// `name.codes`, `name.scales` and, unless all are 2^(bits - 1), `name.zeros`. `w` must live until the last save.
/// @throws error where there is an obstacle.
std::string add_matmul_nbits(onnx_writer& file, packed_matrix const& w, std::string const& name,
                             std::string const& input);

/// Writes a model of this product alone, which takes `x` (token, in) and gives `y` (token, out). @throws error where
/// there is an obstacle, or the file cannot be written.
void save_matmul_nbits(packed_matrix const& w, std::filesystem::path const& path);

} // namespace detent::inline DETENT_ABI::io

#if !defined(DETENT_COMPILED)
#include "detent/io/matmul_nbits.ipp" // IWYU pragma: export
#endif

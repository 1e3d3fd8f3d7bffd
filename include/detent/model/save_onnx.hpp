// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <filesystem>
#include <string>

#include "detent/core/needs_exceptions.hpp"
#include "detent/io/onnx_writer.hpp"
#include "detent/model/decoder.hpp"

namespace detent::inline DETENT_ABI {

/// Why a model cannot be saved for ONNX Runtime, naming the layer or what else is in the way; empty where it can.
/// Weights are not looked at, nor codes and scales.
std::string onnx_obstacle(decoder const& model);

/// Writes a decoder as a file of ONNX, which computes what `decoder::forward` does: it takes `input_ids`, I64 (batch,
/// sequence), and gives `logits`, F32 (batch, sequence, vocabulary). Packed layers are products of ONNX Runtime's
/// MatMulNBits with the same codes and scales, all else plain operators of ONNX; there is no cache of keys and values.
/// Float weights are F16 or BF16 where these have all their numbers. Where the file would be larger than
/// `largest_file`, tensors are in another beside it (`io::onnx_writer`). `description` is kept in it.
/// @throws error when there is an obstacle, or the file cannot be written.
void save_onnx(decoder const& model, std::filesystem::path const& file, std::string const& description,
               index_t largest_file = io::onnx_largest_file);

} // namespace detent::inline DETENT_ABI

#if !defined(DETENT_COMPILED)
#include "detent/model/save_onnx.ipp" // IWYU pragma: export
#endif

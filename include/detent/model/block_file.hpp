// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "detent/core/needs_exceptions.hpp"
#include "detent/model/block.hpp"

namespace detent::inline DETENT_ABI {

/// Writes, as safetensors, all of a block that quantizing it may have changed: weights, packed ones in detent's layout
/// and others as F32, biases, norms, and how inputs are rounded. `metadata` is kept beside them. The file appears whole
/// or not at all. @throws error naming the file, or a layer whose rounded inputs cannot be stored.
void save_block(block const& b, std::filesystem::path const& path, std::map<std::string, std::string> const& metadata);

/// Puts what `save_block` wrote in the place of what `b` has, a block of the same layers and shapes, to the bit, and
/// answers the metadata. @throws error naming the file and the tensor that is missing or wrong.
std::map<std::string, std::string> load_block(block& b, std::filesystem::path const& path);

/// The block without its large numbers, which says all that layouts ask of it: packed weights without codes and scales,
/// and of zero points each number once; float weights of the same shape whose numbers were never written.
block outline_of(block const& b);

} // namespace detent::inline DETENT_ABI

#if !defined(DETENT_COMPILED)
#include "detent/model/block_file.ipp" // IWYU pragma: export
#endif

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "detent/core/needs_exceptions.hpp"
#include "detent/io/ggml_type.hpp"
#include "detent/matrix/packed_matrix.hpp"
#include "detent/model/decoder.hpp"
#include "detent/model/gguf_configuration.hpp"

namespace detent::inline DETENT_ABI {

/// Why a model cannot be saved for llama.cpp, naming the layer or what else is in the way; empty where it can.
std::string gguf_obstacle(decoder const& model);

/// Why no type can hold packed matrices to the bit, as the end of a sentence; empty where one can, which is then
/// `type`.
std::string gguf_packed_obstacle(std::span<packed_matrix const* const> all, io::ggml_type const*& type);

/// Writes a model to a GGUF file as llama.cpp reads it. Codes and scales of packed layers are kept to the bit, and
/// float tensors stored as F16 or BF16 where these have all their numbers, else as F32, norms and biases always.
/// `source` is the directory that the model came from, with its tokenizer; a model of 256 tokens without one gets a
/// tokenizer of bytes. `description` goes into the metadata. The file appears whole or not at all. What a user should
/// know of it is answered, such as a context shorter than the model's.
/// @throws error when there is an obstacle, no tokenizer, or the file cannot be written.
std::vector<std::string> save_gguf(decoder const& model, std::filesystem::path const& source,
                                   std::filesystem::path const& file, std::string const& description);

} // namespace detent::inline DETENT_ABI

#if !defined(DETENT_COMPILED)
#include "detent/model/save_gguf.ipp" // IWYU pragma: export
#endif

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <filesystem>

#include "detent/core/needs_exceptions.hpp"
#include "detent/model/decoder.hpp"

namespace detent::inline DETENT_ABI {

/// Writes a directory in Hugging Face's form of what the GGUF file `path` says beside its weights, which `model` was
/// loaded from: `config.json`, the tokenizer as `tokenizer.json` with `tokenizer_config.json`, and a
/// `model.safetensors` with all tensors of a float checkpoint, whose numbers are all 0 and take no room where the file
/// system knows holes. This is what `save_decoder` asks for as the source of a model: it fills in the numbers, or
/// codes, and copies the rest. @throws error when a file cannot be written, or the tokenizer is of a kind that is not
/// read.
void write_gguf_source(std::filesystem::path const& path, decoder const& model, std::filesystem::path const& directory);

} // namespace detent::inline DETENT_ABI

#if !defined(DETENT_COMPILED)
#include "detent/model/gguf_checkpoint.ipp" // IWYU pragma: export
#endif

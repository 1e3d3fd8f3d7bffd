// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <filesystem>
#include <string>

#include "detent/core/needs_exceptions.hpp"
#include "detent/io/gguf_metadata.hpp"
#include "detent/model/configuration.hpp"

namespace detent::inline DETENT_ABI {

/// Adds the tokenizer of a model's directory and its chat template to the metadata of a GGUF file, as llama.cpp reads
/// them: byte-level BPE whose words are cut by one of the patterns that llama.cpp knows, SentencePiece's BPE and
/// Unigram, and BPE that falls back to bytes. Where the directory has none and the model 256 tokens, they are bytes.
/// @throws error naming the file when there is no tokenizer, or none that llama.cpp has.
void add_gguf_tokenizer(io::gguf_metadata& metadata, std::filesystem::path const& directory,
                        model_configuration const& c);

/// What `add_gguf_tokenizer` would throw of a directory; empty where it would not.
std::string gguf_tokenizer_obstacle(std::filesystem::path const& directory, model_configuration const& c);

} // namespace detent::inline DETENT_ABI

#if !defined(DETENT_COMPILED)
#include "detent/model/write_gguf_tokenizer.ipp" // IWYU pragma: export
#endif

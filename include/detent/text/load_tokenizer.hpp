// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <filesystem>

#include <nlohmann/json_fwd.hpp>

#include "detent/core/abi.hpp"
#include "detent/text/tokenizer.hpp"

namespace detent::inline DETENT_ABI::text {

/// Reads a tokenizer from a model's directory, which has one of these, the first that is there, or from one such file:
/// `tokenizer.json`; `tokenizer.model` of SentencePiece; `vocab.json` with `merges.txt`, as of GPT-2, RoBERTa and
/// Qwen2; `vocab.txt`, as of BERT. All but the first are read with what `tokenizer_config.json` beside them says: the
/// class of the tokenizer, its special and added tokens, and whether a text begins and ends with one. Throws `error`
/// that names the file and what is wrong with it, or that the directory has none.
tokenizer load_tokenizer(std::filesystem::path const& path);

/// The `tokenizer.json` of a directory, or what its `vocab.json` with `merges.txt` amounts to in that form. Throws
/// `error` that names the file and what is wrong with it; the parts of a `tokenizer.json` are not looked at.
nlohmann::json tokenizer_json_of(std::filesystem::path const& directory);

/// Whether a directory has a file that `load_tokenizer` would read.
bool has_tokenizer(std::filesystem::path const& directory);

} // namespace detent::inline DETENT_ABI::text

#if !defined(DETENT_COMPILED)
#include "detent/core/needs_exceptions.hpp"
#include "detent/text/load_tokenizer.ipp" // IWYU pragma: export
#endif

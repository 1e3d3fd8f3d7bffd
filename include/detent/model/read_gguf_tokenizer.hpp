// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <nlohmann/json_fwd.hpp>

#include "detent/core/needs_exceptions.hpp"
#include "detent/io/gguf_metadata.hpp"
#include "detent/text/tokenizer.hpp"

namespace detent::inline DETENT_ABI {

/// Whether a file says what its tokenizer is.
bool has_gguf_tokenizer(io::gguf_metadata const& metadata);

/// The tokenizer.json that a GGUF file amounts to. @throws error when there is none, or of a kind that is not read.
nlohmann::json read_gguf_tokenizer_json(io::gguf_metadata const& metadata);

/// The tokenizer of a GGUF file. @throws error when there is none, or of a kind that is not read.
text::tokenizer read_gguf_tokenizer(io::gguf_metadata const& metadata);

} // namespace detent::inline DETENT_ABI

#if !defined(DETENT_COMPILED)
#include "detent/model/read_gguf_tokenizer.ipp" // IWYU pragma: export
#endif

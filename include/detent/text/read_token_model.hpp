// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <memory>

#include "detent/core/abi.hpp"
#include "detent/text/part.hpp"
#include "detent/text/token_model.hpp"

namespace detent::inline DETENT_ABI::text {

/// The model of tokenizer.json: BPE, WordPiece, Unigram or WordLevel; files from before models had a type are told by
/// their fields. Throws `error` that names what is wrong, or refuses the type by its name.
std::unique_ptr<token_model> read_token_model(part const& json);

} // namespace detent::inline DETENT_ABI::text

#if !defined(DETENT_COMPILED)
#include "detent/core/needs_exceptions.hpp"
#include "detent/text/read_token_model.ipp" // IWYU pragma: export
#endif

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstdint>
#include <vector>

#include "detent/core/abi.hpp"
#include "detent/text/part.hpp"

namespace detent::inline DETENT_ABI::text {

/// The special tokens around the ids of a text: what the field `post_processor` of tokenizer.json says of single texts.
struct post_processor {
    std::vector<std::int32_t> front;
    std::vector<std::int32_t> back;
};

/// Reads the types TemplateProcessing, BertProcessing, RobertaProcessing, Sequence and ByteLevel, which adds none.
/// Throws `error` that names the part and what is wrong with it, or refuses the type by its name.
post_processor read_post_processor(part const& json);

} // namespace detent::inline DETENT_ABI::text

#if !defined(DETENT_COMPILED)
#include "detent/core/needs_exceptions.hpp"
#include "detent/text/post_processor.ipp" // IWYU pragma: export
#endif

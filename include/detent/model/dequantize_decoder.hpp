// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include "detent/core/needs_exceptions.hpp"
#include "detent/model/block.hpp"
#include "detent/model/decoder.hpp"

namespace detent::inline DETENT_ABI {

/// Makes a quantized decoder one of floats, which can be quantized again: packed weights become the numbers that they
/// stand for, and inputs and probabilities are not rounded any more. Answers how many layers were packed.
index_t dequantize_decoder(decoder& model);

/// The same for a block.
index_t dequantize_block(block& b);

} // namespace detent::inline DETENT_ABI

#if !defined(DETENT_COMPILED)
#include "detent/model/dequantize_decoder.ipp" // IWYU pragma: export
#endif

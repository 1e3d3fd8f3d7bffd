// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <vector>

#include "detent/calibrate/quantize_decoder.hpp"
#include "detent/model/block_sequence.hpp"
#include "detent/quantizer/spec.hpp"

namespace detent::inline DETENT_ABI {

/// @throws error when a specification is impossible for a model.
void check(spec const& s, decoder const& model);

/// Quantizes `model` in place as a specification says, all that it says of a model too. @throws error when the
/// specification is impossible for it, before any work, or naming the layer that cannot be quantized; `cancelled`.
std::vector<layer_report> quantize_decoder(decoder& model, spec const& s, calibration text, executor_ref executor = {},
                                           progress const& report = {});

/// The same for a decoder whose blocks come one after the other: `model` is the rest of it, whose own blocks are not
/// looked at. @throws error also where the specification says what needs all blocks at once (`needs_all_blocks`).
std::vector<layer_report> quantize_decoder(decoder& model, block_sequence& blocks, spec const& s, calibration text,
                                           executor_ref executor = {}, progress const& report = {});

/// Whether a specification asks for something that is done to all blocks before the first one is quantized: folding the
/// scales of inputs.
bool needs_all_blocks(spec const& s);

} // namespace detent::inline DETENT_ABI

#if !defined(DETENT_COMPILED)
#include "detent/calibrate/quantize_named.ipp" // IWYU pragma: export
#endif

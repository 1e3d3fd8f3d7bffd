// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <vector>

#include "detent/calibrate/quantize_decoder.hpp"
#include "detent/quantizer/spec.hpp"

namespace detent::inline DETENT_ABI {

/// @throws error when a specification is impossible for a model.
void check(spec const& s, decoder const& model);

/// Quantizes `model` in place as a specification says, all that it says of a model too. @throws error when the
/// specification is impossible for it, before any work, or naming the layer that cannot be quantized; `cancelled`.
std::vector<layer_report> quantize_decoder(decoder& model, spec const& s, calibration text, executor_ref executor = {},
                                           progress const& report = {});

} // namespace detent::inline DETENT_ABI

#if !defined(DETENT_COMPILED)
#include "detent/calibrate/quantize_named.ipp" // IWYU pragma: export
#endif

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <optional>

#include "detent/matrix/activation_quantizer.hpp"

namespace detent::inline DETENT_ABI {

/// What a quantizer must be shown of a model: the more, the longer calibration takes.
struct evidence_needs {
    bool float_stream = false; ///< what layers read in the float model beside what they read behind quantized ones
    bool float_inputs = false; ///< what layers read in the float model instead of that (LLM-FP4)
    bool all_inputs = false;   ///< every input, not only their Hessian (`layer_inputs::kept`)
    std::optional<activation_quantizer> rounded = {}; ///< inputs rounded so, beside what they were
};

} // namespace detent::inline DETENT_ABI

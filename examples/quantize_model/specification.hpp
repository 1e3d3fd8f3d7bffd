// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <string>

#include "detent/matrix/solution.hpp"
#include "detent/quantizer/spec.hpp"

// The catalogue of all quantizers takes longest to compile, so it has a translation unit of its own.

/// Quantizes `w` (out, in) as `s` says.
detent::quantization quantize_by(detent::spec const& s, detent::matrix const& w, detent::layer_inputs const& inputs,
                                 detent::executor_ref executor);

/// Throws `detent::error` when `text` is no specification of a quantizer.
void check_specification(std::string const& text);

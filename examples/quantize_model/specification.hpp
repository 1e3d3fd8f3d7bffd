// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <string>

#include "detent/matrix/solution.hpp"
#include "detent/quantizer/spec.hpp"
#include "detent/solver/layer_inputs.hpp"

// The catalogue of all quantizers takes longest to compile, so it has a translation unit of its own.

/// The number of bits of a code; throws `detent::error` where there is no such grid.
int bits_of_code(detent::spec const& s);

/// Quantizes `w` (out, in) as `s` says, with as many weak columns as are given in `s.weak.columns`.
detent::quantization quantize_by(detent::spec const& s, detent::matrix const& w, detent::layer_inputs const& inputs,
                                 detent::executor_ref executor);

/// Throws `detent::error` when `text` is no specification of a quantizer.
void check_specification(std::string const& text);

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <string>
#include <vector>

#include "detent/calibrate/quantize_decoder.hpp"
#include "detent/model/decoder.hpp"
#include "detent/quantizer/spec.hpp"

// The catalogue of all quantizers takes longest to compile, so it has a translation unit of its own.

/// Quantizes `model` as `s` says, see `detent::quantize_decoder`.
std::vector<detent::layer_report> quantize_by(detent::decoder& model, detent::spec const& s,
                                              detent::calibration const& text, detent::executor_ref executor,
                                              detent::progress const& report);

/// Throws `detent::error` when `s` is impossible, for `model` or any.
void check_specification(detent::spec const& s);
void check_specification(detent::spec const& s, detent::decoder const& model);

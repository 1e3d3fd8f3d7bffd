// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <vector>

#include "detent/calibrate/quantize_decoder.hpp"
#include "detent/io/safetensors.hpp"
#include "detent/model/decoder.hpp"
#include "detent/quantizer/spec.hpp"

// The catalogue of all quantizers takes longest to compile, so it has a translation unit of its own.

/// Quantizes `model` as `s` says, see `detent::quantize_decoder`.
std::vector<detent::layer_report> quantize_by(detent::decoder& model, detent::spec const& s,
                                              detent::calibration const& text, detent::executor_ref executor,
                                              detent::progress const& report);

/// The model that `s` makes of one with configuration `c` and the tensors of `original`, before any work, without its
/// numbers, see `detent::outline_decoder`. Throws `detent::error` when `s` is impossible.
detent::decoder planned(detent::model_configuration const& c, detent::spec const& s,
                        detent::io::checkpoint const& original);
detent::decoder planned(detent::model_configuration const& c, detent::spec const& s);

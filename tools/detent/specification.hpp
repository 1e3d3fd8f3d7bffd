// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <vector>

#include "detent/calibrate/memory_plan.hpp"
#include "detent/calibrate/quantize_decoder.hpp"
#include "detent/io/safetensors.hpp"
#include "detent/model/block_sequence.hpp"
#include "detent/model/decoder.hpp"
#include "detent/quantizer/spec.hpp"

// The catalogue of all quantizers takes longest to compile, so it has a translation unit of its own.

/// Quantizes `model` as `s` says, see `detent::quantize_decoder`.
std::vector<detent::layer_report> quantize_by(detent::decoder& model, detent::spec const& s,
                                              detent::calibration const& text, detent::executor_ref executor,
                                              detent::progress const& report);

/// The same block by block, see there.
std::vector<detent::layer_report> quantize_by(detent::decoder& model, detent::block_sequence& blocks,
                                              detent::spec const& s, detent::calibration const& text,
                                              detent::executor_ref executor, detent::progress const& report);

/// Whether `s` can be done block by block.
bool goes_by_blocks(detent::spec const& s);

/// The memory that quantizing as `s` says takes, see `detent::plan_memory`.
detent::memory_plan memory_of(detent::decoder const& planned, detent::spec const& s, detent::calibration const& text);

/// The bytes of the activations of all windows beside that.
std::uint64_t activations_of(detent::decoder const& planned, detent::spec const& s, detent::calibration const& text);

/// The model that `s` makes of one with configuration `c` and the tensors of `original`, before any work, without its
/// numbers, see `detent::outline_decoder`. Throws `detent::error` when `s` is impossible.
detent::decoder planned(detent::model_configuration const& c, detent::spec const& s,
                        detent::io::checkpoint const& original);
detent::decoder planned(detent::model_configuration const& c, detent::spec const& s);

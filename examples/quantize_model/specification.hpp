// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <optional>
#include <span>
#include <string>

#include "detent/calibrate/learn_block.hpp"
#include "detent/matrix/solution.hpp"
#include "detent/quantizer/spec.hpp"
#include "detent/evidence/layer_inputs.hpp"

// The catalogue of all quantizers takes longest to compile, so it has a translation unit of its own.

/// The number of bits of a code; throws `detent::error` where there is no such grid.
int bits_of_code(detent::spec const& s);

/// Quantizes `w` (out, in) as `s` says, with as many weak columns as are given in `s.weak.columns`.
detent::quantization quantize_by(detent::spec const& s, detent::matrix const& w, detent::layer_inputs const& inputs,
                                 detent::executor_ref executor);

/// The same with scales that were learned.
detent::quantization quantize_with(detent::fake_quantizer<float>::tiles const& scales, detent::spec const& s,
                                   detent::matrix const& w, detent::layer_inputs const& inputs,
                                   detent::executor_ref executor);

/// What learns how blocks are quantized as `s` says.
detent::block_learner make_learner(detent::spec const& s, detent::executor_ref executor, detent::progress report);

/// Quantizes embeddings (vocabulary, hidden) as `s` says.
detent::quantization quantize_embeddings_by(detent::spec const& s, detent::matrix const& table,
                                            detent::executor_ref executor);

/// The powers of two by which the features of `inputs` (token, in) are multiplied for all weights that read them.
detent::vector shared_shifts_by(detent::spec const& s, std::span<detent::matrix const* const> weights,
                                detent::matrix_view inputs, detent::executor_ref executor);

/// How the inputs of layers are rounded where each token has a range of its own.
std::optional<detent::activation_quantizer> dynamic_input_of(detent::spec const& s);

/// Throws `detent::error` when `text` is no specification of a quantizer.
void check_specification(std::string const& text);

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <span>

#include "detent/core/eigen.hpp"
#include "detent/core/executor.hpp"
#include "detent/core/function_ref.hpp"
#include "detent/model/decoder.hpp"

namespace detent::inline DETENT_ABI {

/// Is shown what a linear layer read, (token, in), and the gradient of the loss with respect to what it made, (token,
/// out): all that is needed for the gradient of its weights. Of an expert these are the tokens that were sent to it.
using layer_gradient = function_ref<void(layer_place place, matrix_view input, matrix_view gradient)>;

/// The gradient of a loss with respect to the input `x` of a block, given that with respect to its output, `g`; all are
/// (token, hidden). What the forward pass made is computed again from `x`. Shows every linear layer to `seen`, from the
/// last to the first.
matrix backward(block const& b, matrix_view x, nn::token_rows rows, matrix g, layer_gradient seen,
                executor_ref executor = {});

/// Is shown, after the number of the block, what `layer_gradient` is.
using decoder_gradient = function_ref<void(index_t block, layer_place place, matrix_view input, matrix_view gradient)>;

/// The cross entropy of every token given those before it, in nats and summed over all but the first of each of
/// `sequences` sequences of equal length, and the gradient of `factor` times that: shows every linear layer of the
/// blocks to `seen`, from the last to the first. Only the input of each block is kept on the way, (token, hidden) for
/// each; the rest is computed again. Throws like `decoder::embed`.
double backward(decoder const& model, std::span<nn::token_id const> tokens, index_t sequences, double factor,
                decoder_gradient seen, executor_ref executor = {});

} // namespace detent::inline DETENT_ABI

#if !defined(DETENT_COMPILED)
#include "detent/model/backward.ipp" // IWYU pragma: export
#endif

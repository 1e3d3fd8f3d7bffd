// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstdint>
#include <span>

#include "detent/core/executor.hpp"
#include "detent/core/needs_exceptions.hpp"
#include "detent/core/progress.hpp"
#include "detent/matrix/kv_store.hpp"
#include "detent/model/block_sequence.hpp"
#include "detent/model/configuration.hpp"
#include "detent/model/decoder.hpp"

namespace detent::inline DETENT_ABI {

/// The floats of a token in the widest activation inside a block: of a feed-forward network, of all experts that the
/// token is sent to, or of all heads.
index_t widest_activation(model_configuration const& c);

/// How many windows to run at a time: enough tokens for large products, few enough to keep activations and logits of
/// `features` floats a token within about 64 MiB.
index_t windows_at_once(index_t window, index_t features);

/// The perplexity of `model` on consecutive windows of `window` tokens, the rest dropped: exp of the mean over windows
/// of the mean cross entropy of the window - 1 tokens after the first. No context is carried between windows.
/// @throws error when there is not one window, or a token or window does not fit the model.
double perplexity(decoder const& model, std::span<nn::token_id const> tokens, index_t window,
                  executor_ref executor = {}, progress const& report = {});

/// The same of a decoder whose blocks come one after the other: `model` is the rest of it, whose own blocks are not
/// looked at. So many windows are run at a time that their hidden states take no more than `bytes`, or as few as can
/// be, and all blocks are opened for each such part of the text. The result has the same bits.
double perplexity(decoder const& model, block_sequence& blocks, std::span<nn::token_id const> tokens, index_t window,
                  std::uint64_t bytes, executor_ref executor = {}, progress const& report = {});

/// The `perplexity` of `model` where attention reads keys and values from a cache of `format`. A window is cached at a
/// time, which differs by rounding only from token by token: what the cache makes of a token depends on those before
/// it.
/// @throws error like `perplexity`, and when `format` does not fit the model's heads.
double cached_perplexity(decoder const& model, std::span<nn::token_id const> tokens, index_t window,
                         kv_format const& format, executor_ref executor = {}, progress const& report = {});

} // namespace detent::inline DETENT_ABI

#if !defined(DETENT_COMPILED)
#include "detent/calibrate/perplexity.ipp" // IWYU pragma: export
#endif

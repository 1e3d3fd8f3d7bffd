// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <optional>
#include <vector>

#include "detent/core/eigen.hpp"
#include "detent/core/error.hpp"
#include "detent/core/needs_exceptions.hpp"
#include "detent/model/block.hpp"
#include "detent/model/decoder.hpp"
#include "detent/model/sites.hpp"

namespace detent::inline DETENT_ABI {

/// The weights of the layers that read a site and may be quantized: not those of routers, which stay float. None of
/// them is quantized yet.
std::vector<matrix const*> weights_reading(block const& b, site at, index_t network = 0);

/// Why no scales can be folded into `b` at `at` (of `hidden` in feed-forward network `network`): an error that names
/// the layer in the way. Nothing when they can. See sites.hpp for what is exact.
std::optional<error> fold_obstacle(block const& b, site at, index_t network = 0);

/// Whether `fold` can scale the channels of `b` at `at`.
inline bool can_fold(block const& b, site at, index_t network = 0) { return !fold_obstacle(b, at, network); }

/// Multiplies channel j of the activation of `b` at `at` by `scales(j)` and divides the weights that read it
/// (`readers_of`, those of routers too), so that the block computes what it did: to the bit where all scales are powers
/// of two and nothing becomes subnormal. At `context`, query heads that read one key-value head must have the same
/// scales, see `shared_by_heads`; `hidden` is scaled in feed-forward network `network`. @throws error, with `b` as it
/// was, when there are not `channels_of(b, at, network)` scales, one is not from 2^-64 to 2^64, heads disagree, or a
/// layer is in the way (`fold_obstacle`).
void fold(block& b, site at, float_vector const& scales, index_t network = 0);

/// Gives a small model what makes activations of large ones hard to quantize: a few channels far larger than the rest
/// (Dettmers et al., "LLM.int8()"). Folds `factor` into `channels` evenly spaced channels of what the norms before
/// attention and feed-forward network of every block make; the model computes what it did. @throws error as `fold`, and
/// when there are not so many channels.
void plant_outliers(decoder& model, float factor = 16, index_t channels = 4);

/// The same for a block.
void plant_outliers(block& b, float factor = 16, index_t channels = 4);

} // namespace detent::inline DETENT_ABI

#if !defined(DETENT_COMPILED)
#include "detent/model/fold.ipp" // IWYU pragma: export
#endif

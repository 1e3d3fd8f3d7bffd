// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <optional>
#include <vector>

#include "detent/core/eigen.hpp"
#include "detent/core/error.hpp"
#include "detent/core/needs_exceptions.hpp"
#include "detent/model/block.hpp"
#include "detent/model/decoder.hpp"

namespace detent::inline DETENT_ABI {

/// The inputs of a block's linear layers, whose channels can be scaled: each is what the function of `block` by that
/// name computes, and what one of `block::groups()` reads, in that order.
enum class fold_site {
    attention_input,   ///< from the norm to query, key and value
    attention_context, ///< from value, through attention, to output
    mlp_input,         ///< from the norm to up and, with SwiGLU, gate
    mlp_hidden         ///< from up to down
};

/// All sites, in the order they are computed.
inline constexpr fold_site fold_sites[] = {fold_site::attention_input, fold_site::attention_context,
                                           fold_site::mlp_input, fold_site::mlp_hidden};

/// The linear layers of `b` that read the activation at `site`.
std::vector<linear_role> readers_of(block const& b, fold_site site);

/// How many channels the activation of `b` at `site` has.
index_t channels_of(block const& b, fold_site site);

/// Why no scales can be folded into `b` at `site`: an error that names the layer in the way. Nothing when they can.
std::optional<error> fold_obstacle(block const& b, fold_site site);

/// Whether `fold` can scale the channels of `b` at `site`.
inline bool can_fold(block const& b, fold_site site) { return !fold_obstacle(b, site); }

/// Multiplies channel j of the activation of `b` at `site` by `scales(j)` and divides the weights that read it, so that
/// the block computes what it did: to the bit where all scales are powers of two and nothing becomes subnormal. At
/// `attention_context`, query heads that read one key-value head must have the same scales, see `shared_by_heads`.
/// @throws error, with `b` as it was, when there are not `channels_of(b, site)` scales, one is not from 2^-64 to 2^64,
/// heads disagree, or a layer is in the way (`fold_obstacle`).
void fold(block& b, fold_site site, float_vector const& scales);

/// Gives a small model what makes activations of large ones hard to quantize: a few channels far larger than the rest
/// (Dettmers et al., "LLM.int8()"). Folds `factor` into `channels` evenly spaced channels of the inputs of attention
/// and feed-forward network of every block; the model computes what it did. @throws error as `fold`, and when there are
/// not so many channels.
void plant_outliers(decoder& model, float factor = 16, index_t channels = 4);

} // namespace detent::inline DETENT_ABI

#if !defined(DETENT_COMPILED)
#include "detent/model/fold.ipp" // IWYU pragma: export
#endif

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstdint>
#include <random>
#include <span>
#include <vector>

#include "detent/core/eigen.hpp"
#include "detent/core/executor.hpp"
#include "detent/core/function_ref.hpp"
#include "detent/model/decoder.hpp"
#include "detent/model/kv_cache.hpp"
#include "detent/nn/tokens.hpp"

namespace detent::inline DETENT_ABI {

/// How the next token is chosen from its logits.
struct sampling {
    float temperature = 0.0F; ///< 0 takes the most likely token; 1 samples from the model's distribution
    std::uint64_t seed = 0;   ///< the same seed gives the same tokens
};

/// Draws tokens from logits; the sequence of draws depends on the seed only.
class sampler {
public:
    explicit sampler(sampling options);

    /// The next token given `logits`, (1, vocabulary). Of equally likely tokens greedy choice takes the lowest id.
    nn::token_id operator()(matrix_view logits);

private:
    sampling options_;
    std::mt19937_64 random_;
};

/// Continues `prompt`, which is not empty, by up to `max_tokens` tokens and answers them. Each new token goes to
/// `on_token`, which says whether to continue. Ends early after an end-of-text token and at the model's longest
/// sequence. Keys and values are cached as `cache_format` says. Throws `error` when the prompt is too long or holds
/// tokens outside the vocabulary.
std::vector<nn::token_id> generate(
    decoder const& model, std::span<nn::token_id const> prompt, index_t max_tokens, sampling options = {},
    function_ref<bool(nn::token_id)> on_token = [](nn::token_id) { return true; }, executor_ref executor = {},
    kv_format const& cache_format = {});

} // namespace detent::inline DETENT_ABI

#if !defined(DETENT_COMPILED)
#include "detent/model/generate.ipp" // IWYU pragma: export
#endif

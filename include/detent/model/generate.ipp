// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <span>
#include <vector>

#include "detent/core/eigen.hpp"
#include "detent/core/error.hpp"
#include "detent/core/executor.hpp"
#include "detent/core/function_ref.hpp"
#include "detent/model/decoder.hpp"
#include "detent/model/generate.hpp"
#include "detent/model/kv_cache.hpp"
#include "detent/nn/tokens.hpp"

namespace detent::inline DETENT_ABI {

DETENT_INLINE sampler::sampler(sampling options) : options_(options), random_(options.seed) {
    expect_option(options.temperature >= 0.0F, "generate", "temperature", options.temperature, "0 or more");
}

DETENT_INLINE nn::token_id sampler::operator()(matrix_view logits) {
    expect_valid(logits.rows() == 1 && logits.cols() > 0, "logits", "are not those of one token");
    index_t best = 0;
    float const highest = logits.row(0).maxCoeff(&best);
    if (options_.temperature == 0.0F) {
        return static_cast<nn::token_id>(best);
    }
    auto const weight = [&](index_t id) {
        return std::exp(static_cast<double>(logits(0, id) - highest) / static_cast<double>(options_.temperature));
    };
    double total = 0;
    for (index_t id = 0; id < logits.cols(); ++id) {
        total += weight(id);
    }
    // Not a standard distribution: each standard library computes those in its own way.
    double left = static_cast<double>(random_() >> 11) * 0x1p-53 * total;
    for (index_t id = 0; id < logits.cols(); ++id) {
        left -= weight(id);
        if (left < 0) {
            return static_cast<nn::token_id>(id);
        }
    }
    return static_cast<nn::token_id>(best); // rounding left a rest of the total
}

DETENT_INLINE std::vector<nn::token_id> generate(decoder const& model, std::span<nn::token_id const> prompt,
                                                 index_t max_tokens, sampling options,
                                                 function_ref<bool(nn::token_id)> on_token, executor_ref executor,
                                                 kv_format const& cache_format) {
    expect_valid(!prompt.empty() && max_tokens >= 0, "prompt",
                 "is empty, or is to be followed by a negative number of tokens");
    std::vector<nn::token_id> generated;
    if (max_tokens == 0) {
        return generated;
    }
    // The last token is answered, not read, so it needs no room.
    auto const& c = model.configuration;
    index_t const longest = std::ssize(prompt) + max_tokens - 1;
    kv_cache cache(c, c.any_length ? longest : std::min(longest, c.max_positions), cache_format);
    sampler next(options);
    matrix logits = model.forward(prompt, cache, executor); // (1, vocabulary)
    for (;;) {
        generated.push_back(next(logits));
        nn::token_id const& token = generated.back();
        bool const end_of_text = std::ranges::count(c.end_of_text, index_t{token}) > 0;
        if (!on_token(token) || end_of_text || std::ssize(generated) == max_tokens ||
            cache.size() == cache.capacity()) {
            return generated;
        }
        logits = model.forward({&token, 1}, cache, executor);
    }
}

} // namespace detent::inline DETENT_ABI

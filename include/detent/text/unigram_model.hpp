// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "detent/core/abi.hpp"
#include "detent/text/part.hpp"
#include "detent/text/prefix_search.hpp"
#include "detent/text/token_model.hpp"

namespace detent::inline DETENT_ABI::text {

/// The unigram model (Kudo, "Subword Regularization", section 3.2): of all ways to write a piece with tokens the one
/// with the largest sum of log probabilities, by the algorithm of Viterbi. A character without a token is unknown, at
/// the lowest log probability less 10; neighbours that are unknown become one.
class unigram_model final : public vocabulary_model {
public:
    /// Reads the model of type Unigram, whose vocabulary is an array of pairs of a token and its log probability.
    explicit unigram_model(part const& json);

    void encode(std::string_view piece, std::vector<std::int32_t>& ids) const override;

private:
    void append_text(std::string_view text, std::vector<std::int32_t>& ids) const;

    std::string name_;
    std::vector<double> scores_;
    double unknown_score_ = 0;
    std::optional<std::int32_t> unknown_;
    bool byte_fallback_;
    prefix_search search_;
};

} // namespace detent::inline DETENT_ABI::text

#if !defined(DETENT_COMPILED)
#include "detent/core/needs_exceptions.hpp"
#include "detent/text/unigram_model.ipp" // IWYU pragma: export
#endif

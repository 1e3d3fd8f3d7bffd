// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "detent/core/abi.hpp"
#include "detent/text/pair_table.hpp"
#include "detent/text/part.hpp"
#include "detent/text/token_model.hpp"

namespace detent::inline DETENT_ABI::text {

/// Byte-pair encoding (Sennrich et al., "Neural Machine Translation of Rare Words with Subword Units", section 3.2):
/// the pair of neighbours that comes first in the list of merges becomes one token, until no pair is in it. A heap of
/// pairs and a linked list of tokens make that n log n steps for a run of n characters. A piece is cut into runs where
/// two characters meet that no merge brings together, so that a text without pieces is merged word by word all the
/// same.
class byte_pair_model final : public vocabulary_model {
public:
    /// Reads the model of type BPE. Refuses dropout, which is random. Throws `error` where a merge is of tokens that
    /// are not in the vocabulary.
    explicit byte_pair_model(part const& json);

    void encode(std::string_view piece, std::vector<std::int32_t>& ids) const override;

private:
    struct symbol {
        std::int32_t id;
        std::ptrdiff_t before;
        std::ptrdiff_t after;
    };

    void read_merges(part const& json);
    void add_merge(std::string const& left, std::string const& right, std::size_t rank, part const& json);
    std::vector<std::int32_t> characters(std::string_view piece) const;
    void merge_all(std::vector<symbol>& symbols) const;
    void merge_run(std::span<std::int32_t const> run, std::vector<std::int32_t>& ids) const;

    std::string name_;
    pair_table merges_;
    pair_table joined_;       // pairs of characters that some merge brings together
    bool all_joined_ = false; // whether others than characters are merged too, so that a piece is one run
    std::optional<std::string> unknown_;
    std::string prefix_;
    std::string suffix_;
    bool fuse_unknown_;
    bool byte_fallback_;
    bool ignore_merges_;
};

} // namespace detent::inline DETENT_ABI::text

#if !defined(DETENT_COMPILED)
#include "detent/core/needs_exceptions.hpp"
#include "detent/text/byte_pair_model.ipp" // IWYU pragma: export
#endif

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "detent/text/byte_pair_model.hpp"
#include "detent/text/part.hpp"
#include "detent/text/read_token_model.hpp"
#include "detent/text/token_model.hpp"
#include "detent/text/unigram_model.hpp"
#include "detent/text/word_piece_model.hpp"

namespace detent::inline DETENT_ABI::text {

// Whole pieces are tokens, or unknown.
class word_level_model final : public vocabulary_model {
public:
    explicit word_level_model(part const& json) : vocabulary_model(read_vocabulary(json)) {
        auto const unknown = id(json.text("unk_token"));
        unknown_ = unknown ? *unknown : throw json.wrong("unk_token", "is not in the vocabulary");
    }

    void encode(std::string_view piece, std::vector<std::int32_t>& ids) const override {
        ids.push_back(id(piece).value_or(unknown_));
    }

private:
    std::int32_t unknown_ = 0;
};

DETENT_INLINE std::unique_ptr<token_model> read_token_model(part const& json) {
    std::string type = json.text("type", "");
    if (type.empty()) {
        type = json.find("merges") != nullptr                      ? "BPE"
               : json.find("continuing_subword_prefix") != nullptr ? "WordPiece"
               : json.value("vocab").is_array()                    ? "Unigram"
                                                                   : "WordLevel";
    }
    if (type == "BPE") {
        return std::make_unique<byte_pair_model>(json);
    }
    if (type == "WordPiece") {
        return std::make_unique<word_piece_model>(json);
    }
    if (type == "Unigram") {
        return std::make_unique<unigram_model>(json);
    }
    if (type == "WordLevel") {
        return std::make_unique<word_level_model>(json);
    }
    throw json.unknown_type();
}

} // namespace detent::inline DETENT_ABI::text

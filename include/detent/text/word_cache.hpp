// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "detent/core/abi.hpp"

namespace detent::inline DETENT_ABI::text {

/// The ids of words that were met before: a hash table with open addressing, whose texts and ids lie one after the
/// other. It takes no more words when it has 2^18, and none of more than 64 bytes
/// or ids.
class word_cache {
public:
    /// The ids of a word, valid until the next `add`.
    std::optional<std::span<std::int32_t const>> find(std::string_view word) const {
        if (slots_.empty() || word.size() > longest) {
            return std::nullopt;
        }
        slot const& s = slots_[place(word, hash(word))];
        return s.size == 0 ? std::nullopt
                           : std::optional(std::span<std::int32_t const>(ids_).subspan(s.first_id, s.ids));
    }

    /// Keeps the ids of a word that is not there and not empty.
    void add(std::string_view word, std::span<std::int32_t const> ids) {
        if (word.size() > longest || ids.size() > most_ids || words_ == most) {
            return;
        }
        if (2 * (words_ + 1) > slots_.size()) {
            grow();
        }
        auto const h = hash(word);
        slots_[place(word, h)] = {h, static_cast<std::uint32_t>(texts_.size()), static_cast<std::uint32_t>(ids_.size()),
                                  static_cast<std::uint16_t>(word.size()), static_cast<std::uint16_t>(ids.size())};
        texts_ += word;
        ids_.insert(ids_.end(), ids.begin(), ids.end());
        ++words_;
    }

private:
    static constexpr std::size_t longest = 64;
    static constexpr std::size_t most_ids = 64;
    static constexpr std::size_t most = std::size_t{1} << 18;

    struct slot {
        std::size_t hash = 0;
        std::uint32_t text = 0;
        std::uint32_t first_id = 0;
        std::uint16_t size = 0; // 0: free
        std::uint16_t ids = 0;
    };

    static std::size_t hash(std::string_view word) { return std::hash<std::string_view>()(word); }

    // The slot that has the word, or the free one where it belongs.
    std::size_t place(std::string_view word, std::size_t h) const {
        std::size_t i = h & (slots_.size() - 1);
        while (slots_[i].size != 0 &&
               (slots_[i].hash != h || std::string_view(texts_).substr(slots_[i].text, slots_[i].size) != word)) {
            i = (i + 1) & (slots_.size() - 1);
        }
        return i;
    }

    void grow() {
        std::vector<slot> old(slots_.empty() ? 1024 : 2 * slots_.size());
        old.swap(slots_);
        for (auto const& s : old) {
            if (s.size != 0) {
                slots_[place(std::string_view(texts_).substr(s.text, s.size), s.hash)] = s;
            }
        }
    }

    std::vector<slot> slots_; // a power of two of them, at most half full
    std::string texts_;
    std::vector<std::int32_t> ids_;
    std::size_t words_ = 0;
};

} // namespace detent::inline DETENT_ABI::text

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "detent/core/abi.hpp"

namespace detent::inline DETENT_ABI::text {

/// Finds all of a set of texts that another text begins with, by narrowing a sorted list byte by byte.
class prefix_search {
public:
    using entry = std::pair<std::string, std::int32_t>;

    prefix_search() = default;

    /// Takes texts, none of which is empty, with a number for each. Of two that are equal the first stays.
    explicit prefix_search(std::vector<entry> entries) : entries_(std::move(entries)) {
        auto const before = [](entry const& a, entry const& b) { return a.first < b.first; };
        auto const same = [](entry const& a, entry const& b) { return a.first == b.first; };
        std::stable_sort(entries_.begin(), entries_.end(), before);
        entries_.erase(std::unique(entries_.begin(), entries_.end(), same), entries_.end());
        for (std::size_t i = 0; i < entries_.size(); ++i) {
            ++starts_[byte(entries_[i].first, 0) + 1];
        }
        for (std::size_t b = 1; b < starts_.size(); ++b) {
            starts_[b] += starts_[b - 1];
        }
    }

    bool empty() const { return entries_.empty(); }

    /// Whether any of the texts begins with this byte.
    bool begins(char first) const {
        auto const b = static_cast<unsigned char>(first);
        return starts_[b] < starts_[b + 1U];
    }

    /// Calls `f(size, number)` for each that `text` begins with, shorter ones first.
    template <class F> void for_each(std::string_view text, F&& f) const {
        if (text.empty()) {
            return;
        }
        auto first = entries_.begin() + static_cast<std::ptrdiff_t>(starts_[byte(text, 0)]);
        auto last = entries_.begin() + static_cast<std::ptrdiff_t>(starts_[byte(text, 0) + 1]);
        for (std::size_t size = 1; first != last; ++size) {
            if (first->first.size() == size) {
                f(size, first->second);
                ++first;
            }
            if (size == text.size()) {
                return;
            }
            std::size_t const wanted = byte(text, size);
            first = std::partition_point(first, last, [&](entry const& e) { return byte(e.first, size) < wanted; });
            last = std::partition_point(first, last, [&](entry const& e) { return byte(e.first, size) == wanted; });
        }
    }

private:
    static std::size_t byte(std::string_view text, std::size_t i) { return static_cast<unsigned char>(text[i]); }

    std::vector<entry> entries_;
    std::array<std::size_t, 257> starts_{};
};

} // namespace detent::inline DETENT_ABI::text

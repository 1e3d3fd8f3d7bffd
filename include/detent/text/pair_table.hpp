// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "detent/core/abi.hpp"

namespace detent::inline DETENT_ABI::text {

/// What becomes of a pair of tokens: a hash table with open addressing. Ids are not negative.
class pair_table {
public:
    struct merge {
        std::int32_t rank;
        std::int32_t id;
    };

    /// Puts a merge in, or in the place of the one that the pair has.
    void set(std::int32_t left, std::int32_t right, merge value) {
        if (2 * (size_ + 1) > slots_.size()) {
            grow();
        }
        slot& s = slots_[place(key_of(left, right))];
        size_ += s.key == none ? 1 : 0;
        s = {key_of(left, right), value};
    }

    /// The merge of a pair, or null.
    merge const* find(std::int32_t left, std::int32_t right) const {
        if (slots_.empty()) {
            return nullptr;
        }
        slot const& s = slots_[place(key_of(left, right))];
        return s.key == none ? nullptr : &s.value;
    }

private:
    static constexpr std::uint64_t none = ~std::uint64_t{0}; // of no pair, because ids have 31 bits

    struct slot {
        std::uint64_t key = none;
        merge value{};
    };

    static std::uint64_t key_of(std::int32_t left, std::int32_t right) {
        return (static_cast<std::uint64_t>(left) << 32) | static_cast<std::uint64_t>(right);
    }

    // The slot that has the key, or the free one where it belongs.
    std::size_t place(std::uint64_t key) const {
        constexpr std::uint64_t odd = 0x9E3779B97F4A7C15; // 2^64 over the golden ratio spreads neighbours
        std::uint64_t const product = key * odd;
        std::size_t i = static_cast<std::size_t>(product ^ (product >> 32)) & (slots_.size() - 1);
        while (slots_[i].key != none && slots_[i].key != key) {
            i = (i + 1) & (slots_.size() - 1);
        }
        return i;
    }

    void grow() {
        std::vector<slot> old(slots_.empty() ? 64 : 2 * slots_.size());
        old.swap(slots_);
        for (auto const& s : old) {
            if (s.key != none) {
                slots_[place(s.key)] = s;
            }
        }
    }

    std::vector<slot> slots_; // a power of two of them, at most half full
    std::size_t size_ = 0;
};

} // namespace detent::inline DETENT_ABI::text

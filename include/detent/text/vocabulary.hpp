// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "detent/core/abi.hpp"
#include "detent/core/error.hpp"
#include "detent/core/needs_exceptions.hpp"
#include "detent/io/json.hpp"

namespace detent::inline DETENT_ABI::text {

/// Tokens and their ids, each once. Ids are from 0 to 2^31 - 1 and may have gaps.
class vocabulary {
public:
    vocabulary() = default;
    vocabulary(vocabulary&&) = default;
    vocabulary& operator=(vocabulary&&) = default;

    /// Throws `error(subject, ...)` where the token or the id is there already.
    void add(std::string const& token, std::int32_t id, std::string const& subject) {
        auto const [place, is_new] = ids_.emplace(token, id);
        if (!is_new) {
            throw error(subject, "repeats the token '" + io::printable(token) + "'");
        }
        // The node of the other map holds the text and stays where it is.
        auto const [other, is_new_id] = tokens_.emplace(id, &place->first);
        if (!is_new_id) {
            throw error(subject, "gives '" + io::printable(*other->second) + "' and '" + io::printable(token) +
                                     "' the same id " + std::to_string(id));
        }
    }

    std::size_t size() const { return ids_.size(); }

    std::optional<std::int32_t> id(std::string_view token) const {
        auto const found = ids_.find(token);
        return found == ids_.end() ? std::nullopt : std::optional(found->second);
    }

    /// The token, or null. Valid as long as this object, also after moving it.
    std::string const* token(std::int32_t id) const {
        auto const found = tokens_.find(id);
        return found == tokens_.end() ? nullptr : found->second;
    }

    /// The largest id, -1 without tokens.
    std::int32_t largest() const {
        std::int32_t result = -1;
        for (auto const& [id, token] : tokens_) {
            result = id > result ? id : result;
        }
        return result;
    }

private:
    struct hash {
        using is_transparent = void;
        std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
    };

    std::unordered_map<std::string, std::int32_t, hash, std::equal_to<>> ids_;
    std::unordered_map<std::int32_t, std::string const*> tokens_;
};

/// The token that stands for a byte, such as `<0x0A>`.
inline std::string byte_token(char byte) {
    constexpr std::string_view digits = "0123456789ABCDEF";
    auto const value = static_cast<unsigned char>(byte);
    return std::string("<0x") + digits[value >> 4] + digits[value & 15] + ">";
}

/// Appends the ids of the tokens that stand for the bytes of `text`; false, and nothing is appended, where one has
/// none.
template <class Ids> bool append_byte_tokens(vocabulary const& tokens, std::string_view text, Ids& ids) {
    std::size_t const before = ids.size();
    for (char const byte : text) {
        auto const id = tokens.id(byte_token(byte));
        if (!id) {
            ids.resize(before);
            return false;
        }
        ids.push_back(*id);
    }
    return true;
}

} // namespace detent::inline DETENT_ABI::text

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include <nlohmann/json.hpp>

#include "detent/core/error.hpp"
#include "detent/io/json.hpp"
#include "detent/io/text_file.hpp"

namespace detent::inline DETENT_ABI::io {

DETENT_INLINE std::string printable(std::string_view text) {
    constexpr std::size_t longest = 200;
    std::size_t end = std::min(text.size(), longest);
    while (end > 0 && end < text.size() && (static_cast<unsigned char>(text[end]) & 0xC0U) == 0x80U) {
        --end; // do not cut a UTF-8 character in two
    }
    std::string result(text.substr(0, end));
    std::ranges::replace_if(
        result, [](unsigned char c) { return c < 0x20U || c == 0x7FU; }, '?');
    return end < text.size() ? result + "..." : result;
}

DETENT_INLINE nlohmann::json parse_json(std::string_view text, std::string const& subject) {
    constexpr int deepest = 64;
    if (text.find('\0') != std::string_view::npos) {
        throw error(subject, "is not valid JSON: it contains a zero byte"); // the parser would take it for the end
    }
    std::vector<std::unordered_set<std::string>> keys; // of every open object
    using parse_event = nlohmann::json::parse_event_t;
    auto const check = [&](int depth, parse_event event, nlohmann::json& parsed) {
        if (depth > deepest) {
            throw error(subject, "is nested deeper than " + std::to_string(deepest) + " levels");
        }
        if (event == parse_event::object_start) {
            keys.emplace_back();
        } else if (event == parse_event::object_end) {
            keys.pop_back();
        } else if (event == parse_event::key) {
            auto const& name = parsed.get_ref<std::string const&>();
            if (!keys.back().insert(name).second) {
                throw error(subject, "repeats the key '" + printable(name) + "'");
            }
        }
        return true;
    };
    try {
        return nlohmann::json::parse(text.begin(), text.end(), check);
    } catch (nlohmann::json::exception const& e) {
        std::string_view message = e.what();
        if (auto const end = message.find("] "); end != std::string_view::npos) {
            message.remove_prefix(end + 2); // "[json.exception.parse_error.101] "
        }
        throw error(subject, "is not valid JSON: " + printable(message));
    }
}

DETENT_INLINE nlohmann::json read_json(std::filesystem::path const& path) {
    mapped_file const file(path);
    return parse_json({reinterpret_cast<char const*>(file.bytes().data()), file.bytes().size()}, path.string());
}

} // namespace detent::inline DETENT_ABI::io

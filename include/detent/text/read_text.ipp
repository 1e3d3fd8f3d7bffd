// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "detent/io/json.hpp"
#include "detent/io/text_file.hpp"
#include "detent/text/part.hpp"
#include "detent/text/read_text.hpp"

namespace detent::inline DETENT_ABI::text {

inline void read_json_lines(std::filesystem::path const& file, std::vector<document>& result) {
    std::string const text = io::read_text(file);
    std::size_t number = 0;
    for (std::string_view rest = text; !rest.empty();) {
        auto const end = rest.find('\n');
        auto const line = rest.substr(0, end);
        rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
        std::string const name = file.string() + ", line " + std::to_string(++number);
        if (line.find_first_not_of(" \t\r") != std::string_view::npos) {
            auto const json = io::parse_json(line, name);
            result.push_back({name, part(json, name).text("text")});
        }
    }
}

DETENT_INLINE std::vector<document> read_text_files(std::span<std::filesystem::path const> files) {
    std::vector<document> result;
    for (auto const& file : files) {
        if (file.extension() == ".jsonl") {
            read_json_lines(file, result);
        } else {
            result.push_back({file.string(), io::read_text(file)});
        }
    }
    return result;
}

} // namespace detent::inline DETENT_ABI::text

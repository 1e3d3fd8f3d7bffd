// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>

#include "detent/quantizer/vocabulary.hpp"
#include "detent/quantizer/vocabulary_text.hpp"
#include "detent/quantizer/word.hpp"

namespace detent::inline DETENT_ABI::vocabulary {

DETENT_INLINE std::string explanation(word const& w) {
    std::string text(w.help);
    bool listing = false; // of several needs only the first says "needs"
    for (need const& n : w.needs) {
        if (n.met) {
            bool const lists = n.says.starts_with("needs ");
            text += listing && lists ? ", " + std::string(n.says.substr(6)) : "; " + std::string(n.says);
            listing = lists;
        }
    }
    return text;
}

DETENT_INLINE std::string wrapped(std::string line, std::string const& text, std::size_t indent, std::size_t width) {
    line.resize(std::max(indent, line.size()), ' ');
    std::string lines;
    bool first = true; // of its line
    for (std::size_t begin = 0; begin < text.size();) {
        std::size_t const end = std::min(text.find(' ', begin), text.size());
        if (!first && line.size() + 1 + end - begin > width) {
            lines += line + "\n";
            line.assign(indent, ' ');
            first = true;
        }
        line += (first ? "" : " ") + text.substr(begin, end - begin);
        first = false;
        begin = end + 1;
    }
    return lines + line + "\n";
}

DETENT_INLINE std::string plain_text(std::size_t width) {
    std::size_t indent = 0;
    for (section const& s : sections) {
        for (word const& w : s.words) {
            indent = std::max(indent, w.example().size() + 4);
        }
    }
    std::string page = "A specification is words with colons between them, such as int4:g128:gptq.\n";
    for (section const& s : sections) {
        page += "\n" + std::string(s.title) + "\n";
        for (word const& w : s.words) {
            std::string explained = explanation(w);
            std::erase(explained, '`');
            page += wrapped("  " + w.example(), explained, indent, width);
        }
    }
    return page;
}

DETENT_INLINE std::string markdown() {
    std::string page = R"(# Specifications

A specification is a quantizer chosen at run time, such as `int4:g128:gptq`: a grid and whatever else differs from the
defaults, in words separated by colons, in any order. Numbers in the words below are examples. Words that exclude each
other are reported with the specification and the part that is wrong.

This page is made from the tables of `include/detent/quantizer/vocabulary.hpp`, from which the parser is made too. After
a change there, `detent words --markdown > docs/specification.md` writes it again; `detent words` shows the same in a
terminal.
)";
    for (section const& s : sections) {
        page += "\n## " + std::string(s.title) + "\n\n" + std::string(s.note) + "\n\n| word | meaning |\n|---|---|\n";
        for (word const& w : s.words) {
            page += "| `" + w.example() + "` | " + explanation(w) + " |\n";
        }
    }
    return page;
}

} // namespace detent::inline DETENT_ABI::vocabulary

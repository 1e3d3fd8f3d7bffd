// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>

#if defined(DETENT_UNICODE)
#include <utf8proc.h>
#endif

#include "detent/core/error.hpp"
#include "detent/text/missing.hpp"
#include "detent/text/unicode.hpp"
#include "detent/text/utf8.hpp"

namespace detent::inline DETENT_ABI::text {

#if defined(DETENT_UNICODE)

// Appends the normal form of a run in which every character may change.
inline void append_normalized(std::string& result, std::string_view run, normal_form form) {
    int const compose = form == normal_form::nfc || form == normal_form::nfkc ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE;
    int const compatible = form == normal_form::nfkc || form == normal_form::nfkd ? UTF8PROC_COMPAT : 0;
    utf8proc_uint8_t* mapped = nullptr;
    auto const size =
        utf8proc_map(reinterpret_cast<utf8proc_uint8_t const*>(run.data()), static_cast<utf8proc_ssize_t>(run.size()),
                     &mapped, static_cast<utf8proc_option_t>(UTF8PROC_STABLE | compose | compatible));
    std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> const owner(mapped, &std::free);
    if (size < 0) {
        throw error("text", std::string("cannot be normalized: ") + utf8proc_errmsg(size));
    }
    result.append(reinterpret_cast<char const*>(mapped), static_cast<std::size_t>(size));
}

DETENT_INLINE std::string normalized(std::string_view text, normal_form form) {
    auto const ascii = [&](std::size_t i) { return static_cast<unsigned char>(text[i]) < 0x80; };
    std::string result;
    result.reserve(text.size());
    std::size_t done = 0;
    for (std::size_t i = 0; i < text.size();) {
        if (ascii(i)) {
            ++i;
            continue;
        }
        // ASCII changes only where marks follow it, so that a run has the ASCII character before it and none after.
        std::size_t const begin = i > done ? i - 1 : i;
        while (i < text.size() && !ascii(i)) {
            ++i;
        }
        result += text.substr(done, begin - done);
        append_normalized(result, text.substr(begin, i - begin), form);
        done = i;
    }
    return result += text.substr(done);
}

DETENT_INLINE void append_lowercase(std::string& text, char32_t c) {
    if (c == 0x130) {
        text += "i\xCC\x87"; // the only character whose lower case is two; utf8proc knows mappings to one
        return;
    }
    append_utf8(text, static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))));
}

inline utf8proc_category_t category_of(char32_t c) { return utf8proc_category(static_cast<utf8proc_int32_t>(c)); }

DETENT_INLINE bool is_mark(char32_t c) {
    auto const category = category_of(c);
    return category >= UTF8PROC_CATEGORY_MN && category <= UTF8PROC_CATEGORY_ME;
}

DETENT_INLINE bool is_nonspacing_mark(char32_t c) { return category_of(c) == UTF8PROC_CATEGORY_MN; }

DETENT_INLINE bool is_number(char32_t c) {
    auto const category = category_of(c);
    return category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO;
}

DETENT_INLINE bool is_punctuation(char32_t c) {
    if (c < 0x80) {
        return (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') || (c >= '{' && c <= '~');
    }
    auto const category = category_of(c);
    return category >= UTF8PROC_CATEGORY_PC && category <= UTF8PROC_CATEGORY_PO;
}

DETENT_INLINE bool is_control(char32_t c) {
    auto const category = category_of(c);
    return category == UTF8PROC_CATEGORY_CC || category == UTF8PROC_CATEGORY_CF || category == UTF8PROC_CATEGORY_CO;
}

DETENT_INLINE std::size_t first_grapheme(std::string_view text) {
    std::string_view rest = text;
    char32_t before = take_character(rest);
    utf8proc_int32_t state = 0;
    while (!rest.empty()) {
        std::string_view next = rest;
        char32_t const c = take_character(next);
        if (utf8proc_grapheme_break_stateful(static_cast<utf8proc_int32_t>(before), static_cast<utf8proc_int32_t>(c),
                                             &state)) {
            break;
        }
        before = c;
        rest = next;
    }
    return text.size() - rest.size();
}

#else

DETENT_INLINE std::string normalized(std::string_view, normal_form) { raise_no_unicode(); }
DETENT_INLINE void append_lowercase(std::string&, char32_t) { raise_no_unicode(); }
DETENT_INLINE bool is_mark(char32_t) { raise_no_unicode(); }
DETENT_INLINE bool is_nonspacing_mark(char32_t) { raise_no_unicode(); }
DETENT_INLINE bool is_number(char32_t) { raise_no_unicode(); }
DETENT_INLINE bool is_punctuation(char32_t) { raise_no_unicode(); }
DETENT_INLINE bool is_control(char32_t) { raise_no_unicode(); }
DETENT_INLINE std::size_t first_grapheme(std::string_view) { raise_no_unicode(); }

#endif

} // namespace detent::inline DETENT_ABI::text

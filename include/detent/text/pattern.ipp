// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#if defined(DETENT_UNICODE)
#if !defined(PCRE2_CODE_UNIT_WIDTH)
#define PCRE2_CODE_UNIT_WIDTH 8
#endif
#include <pcre2.h>
#endif

#include "detent/core/error.hpp"
#include "detent/io/json.hpp"
#include "detent/text/missing.hpp"
#include "detent/text/pattern.hpp"
#include "detent/text/utf8.hpp"

namespace detent::inline DETENT_ABI::text {

// Reads an expression from left to right and writes what PCRE2 takes for the same.
class oniguruma_translation {
public:
    oniguruma_translation(std::string_view expression, std::string const& subject)
        : rest_(expression), subject_(subject) {}

    std::string translate() {
        while (!rest_.empty()) {
            char const c = take();
            if (c == '\\') {
                escape(false);
            } else if (c == '[') {
                character_class();
            } else if (c == '(') {
                group();
            } else if (c == '{') {
                interval();
            } else {
                result_ += c;
            }
        }
        return std::move(result_);
    }

private:
    static constexpr std::string_view word = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}";
    // Outside of classes Oniguruma has a table for Latin-1, to which small digits and fractions are words too.
    static constexpr std::string_view wider_word =
        "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}";
    static constexpr std::string_view hexadecimal = "0-9a-fA-F";

    char take() {
        if (rest_.empty()) {
            throw error(subject_, "is not a regular expression: it ends too early");
        }
        char const c = rest_.front();
        rest_.remove_prefix(1);
        return c;
    }

    bool follows(std::string_view text) const { return rest_.substr(0, text.size()) == text; }

    [[noreturn]] void refuse(std::string const& what) const {
        throw error(subject_, "has a regular expression with " + what + ", which detent does not read");
    }

    static std::string in_class(std::string_view members, bool negated) {
        return std::string(negated ? "[^" : "[") + std::string(members) + "]";
    }

    void members(std::string_view of, char escaped, bool inside, bool negated) {
        if (inside && negated) {
            refuse(std::string("\\") + escaped + " in a class");
        }
        result_ += inside ? std::string(of) : in_class(of, negated);
    }

    void escape(bool inside) {
        char const c = take();
        bool const letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        if (c == 's' || c == 'S') {
            result_ += c == 's' ? "\\p{White_Space}" : "\\P{White_Space}";
        } else if (c == 'w' || c == 'W') {
            members(inside ? word : wider_word, c, inside, c == 'W');
        } else if (c == 'h' || c == 'H') {
            members(hexadecimal, c, inside, c == 'H');
        } else if (c == 'v') {
            result_ += "\\x0b";
        } else if ((c == 'b' || c == 'B') && !inside) {
            std::string const w = in_class(wider_word, false);
            bool const boundary = c == 'b';
            result_ += "(?:(?<=" + w + ")(?" + (boundary ? "!" : "=") + w + ")|(?<!" + w + ")(?" +
                       (boundary ? "=" : "!") + w + "))";
        } else if (c == 'u') {
            result_ += "\\x{" + std::string(rest_.substr(0, 4)) + "}";
            rest_.remove_prefix(rest_.size() < 4 ? rest_.size() : 4);
        } else if (letter && std::string_view(inside ? "nrtfaexpPdDb" : "nrtfaexpPdDAzZGRXkg").find(c) ==
                                 std::string_view::npos) {
            refuse(std::string("\\") + c);
        } else {
            result_ += '\\';
            result_ += c;
            if (letter && follows("{")) { // \p{L}, \x{41}
                auto const end = rest_.find('}');
                result_ += rest_.substr(0, end);
                rest_.remove_prefix(end == std::string_view::npos ? rest_.size() : end);
            }
        }
    }

    void character_class() {
        result_ += '[';
        if (follows("^")) {
            result_ += take();
        }
        for (bool first = true;; first = false) {
            char const c = take();
            if (c == ']' && !first) {
                result_ += c;
                return;
            }
            if (c == '\\') {
                escape(true);
            } else if (c == '[') {
                refuse(follows(":") ? "a POSIX bracket" : "a class in a class");
            } else if (c == '&' && follows("&")) {
                refuse("&& in a class");
            } else {
                result_ += c == ']' ? "\\]" : std::string(1, c);
            }
        }
    }

    void group() {
        result_ += '(';
        if (follows("*")) {
            refuse("(*");
        }
        if (!follows("?")) {
            return;
        }
        result_ += take();
        if (follows("~") || follows("{") || follows("@")) {
            refuse(std::string("(?") + rest_.front());
        }
        // Options: Oniguruma's m is what PCRE2 calls s, and what PCRE2 calls m is always on.
        std::size_t const end = rest_.find_first_not_of("imx-");
        if (end != std::string_view::npos && (rest_[end] == ':' || rest_[end] == ')')) {
            for (std::size_t i = 0; i < end; ++i) {
                char const option = take();
                result_ += option == 'm' ? 's' : option;
            }
        }
    }

    void interval() {
        std::size_t const end = rest_.find('}');
        std::string_view const inside = rest_.substr(0, end);
        bool const numbers = end != std::string_view::npos && !inside.empty() && inside != "," &&
                             inside.find_first_not_of("0123456789,") == std::string_view::npos;
        if (!numbers) {
            result_ += "\\{";
            return;
        }
        result_ += inside.front() == ',' ? "{0" : "{";
        result_ += inside;
        result_ += '}';
        rest_.remove_prefix(end + 1);
        if (follows("+")) {
            refuse("{n}+");
        }
    }

    std::string_view rest_;
    std::string const& subject_;
    std::string result_;
};

DETENT_INLINE std::string pcre2_of_oniguruma(std::string_view expression, std::string const& subject) {
    return oniguruma_translation(expression, subject).translate();
}

#if defined(DETENT_UNICODE)

DETENT_INLINE pattern::pattern(std::string_view expression, pattern_syntax syntax, std::string subject)
    : subject_(std::move(subject)) {
    constexpr std::size_t longest = 65536;
    if (expression.size() > longest) {
        throw error(subject_, "has a pattern of " + std::to_string(expression.size()) + " bytes, more than 65536");
    }
    bool const foreign = syntax == pattern_syntax::oniguruma;
    std::string const translated = foreign ? pcre2_of_oniguruma(expression, subject_) : std::string(expression);
    // The interpreter may keep 512 MiB for its way back.
    std::string const limited = (syntax == pattern_syntax::literal ? "" : "(*LIMIT_HEAP=524288)") + translated;
    std::unique_ptr<pcre2_compile_context, decltype(&pcre2_compile_context_free)> const context(
        pcre2_compile_context_create(nullptr), &pcre2_compile_context_free);
    pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
    // Literal text allows no option that is about expressions.
    std::uint32_t const options = syntax == pattern_syntax::literal
                                      ? PCRE2_UTF | PCRE2_LITERAL
                                      : PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C;
    int code = 0;
    PCRE2_SIZE place = 0;
    pcre2_code* const compiled = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(limited.data()), limited.size(), options,
                                               &code, &place, context.get());
    if (compiled == nullptr) {
        std::array<PCRE2_UCHAR, 256> message{};
        pcre2_get_error_message(code, message.data(), message.size());
        throw error(subject_, "'" + io::printable(translated) +
                                  "' is not a regular expression: " + reinterpret_cast<char const*>(message.data()) +
                                  ", at byte " + std::to_string(place - (limited.size() - translated.size())));
    }
    pcre2_jit_compile(compiled, PCRE2_JIT_COMPLETE); // without machine code pcre2_match interprets the expression
    code_ = std::shared_ptr<pcre2_code const>(compiled,
                                              [](pcre2_code const* c) { pcre2_code_free(const_cast<pcre2_code*>(c)); });
}

DETENT_INLINE pattern_matches::pattern_matches(pattern const& p, std::string_view text)
    : pattern_(p), text_(text), scratch_(pcre2_match_data_create(1, nullptr), [](void* data) {
          pcre2_match_data_free(static_cast<pcre2_match_data*>(data));
      }) {
    if (!scratch_) {
        throw std::bad_alloc();
    }
}

DETENT_INLINE bool pattern_matches::search(std::size_t from) {
    auto const* const code = static_cast<pcre2_code const*>(pattern_.code_.get());
    auto* const data = static_cast<pcre2_match_data*>(scratch_.get());
    auto const* const text = reinterpret_cast<PCRE2_SPTR>(text_.data());
    int found = pcre2_match(code, text, text_.size(), from, PCRE2_NO_UTF_CHECK, data, nullptr);
    if (found == PCRE2_ERROR_JIT_STACKLIMIT) {
        // Machine code has 32 KiB for its way back, the interpreter the heap.
        found = pcre2_match(code, text, text_.size(), from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, data, nullptr);
    }
    if (found == PCRE2_ERROR_NOMATCH) {
        return false;
    }
    if (found < 0) {
        std::array<PCRE2_UCHAR, 256> message{};
        pcre2_get_error_message(found, message.data(), message.size());
        throw error(pattern_.subject_, std::string("its regular expression fails on a text: ") +
                                           reinterpret_cast<char const*>(message.data()));
    }
    auto const* const bounds = pcre2_get_ovector_pointer(data);
    begin_ = bounds[0];
    end_ = bounds[1];
    return true;
}

#else

DETENT_INLINE pattern::pattern(std::string_view, pattern_syntax, std::string) { raise_no_unicode(); }
DETENT_INLINE pattern_matches::pattern_matches(pattern const& p, std::string_view text) : pattern_(p), text_(text) {}
DETENT_INLINE bool pattern_matches::search(std::size_t) { raise_no_unicode(); }

#endif

DETENT_INLINE bool pattern_matches::next() {
    while (from_ <= text_.size()) {
        std::size_t const last = end_;
        if (!search(from_)) {
            break;
        }
        if (begin_ < end_ || !matched_ || end_ != last) {
            from_ = end_;
            matched_ = true;
            return true;
        }
        from_ += from_ < text_.size() ? character_size(text_[from_]) : 1;
    }
    from_ = text_.size() + 1;
    return false;
}

DETENT_INLINE std::string replaced(std::string_view text, pattern const& what, std::string_view content) {
    std::size_t const longest = longest_replacement(text.size());
    std::string result;
    std::size_t done = 0;
    for (pattern_matches match(what, text); match.next();) {
        if (result.size() > longest) {
            throw error("text", "becomes more than 64 times as long when it is normalized");
        }
        result += text.substr(done, match.begin() - done);
        result += content;
        done = match.end();
    }
    return result += text.substr(done);
}

} // namespace detent::inline DETENT_ABI::text

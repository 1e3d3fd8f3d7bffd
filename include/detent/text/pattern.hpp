// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "detent/core/abi.hpp"

namespace detent::inline DETENT_ABI::text {

/// A regular expression of Oniguruma, which tokenizer.json is written for, as one of PCRE2 that matches the same text:
/// `\s` is the property White_Space, `\w` is Alphabetic, marks, digits and connectors, `\h` a hexadecimal digit, `\v` a
/// vertical tab. Throws `error(subject, ...)` that names what it uses and PCRE2 would take for something else: classes
/// in classes, `&&`, `(?~`, POSIX brackets, `{n}+`.
std::string pcre2_of_oniguruma(std::string_view expression, std::string const& subject);

/// What a pattern is written in.
enum class pattern_syntax { oniguruma, pcre2, literal };

/// A compiled regular expression or literal text, for valid UTF-8. Copies share it; it is never changed.
class pattern {
public:
    /// Compiles `expression`. Throws `error(subject, ...)` with the place and reason where it is no expression, or is
    /// longer than 64 KiB.
    pattern(std::string_view expression, pattern_syntax syntax, std::string subject);

private:
    friend class pattern_matches;
    std::shared_ptr<void const> code_;
    std::string subject_;
};

/// The matches of a pattern in a text one after the other, none overlapping, as Oniguruma's `find_iter` gives them: an
/// empty match is not taken where the match before it ended. Keeps views of both.
class pattern_matches {
public:
    pattern_matches(pattern const& p, std::string_view text);

    /// Goes to the next match; false if there is none. Throws `error` where the search takes more than the steps that
    /// PCRE2 allows it.
    bool next();

    /// Where the match is in the text, in bytes.
    std::size_t begin() const { return begin_; }
    std::size_t end() const { return end_; }

private:
    bool search(std::size_t from);

    pattern const& pattern_;
    std::string_view text_;
    std::shared_ptr<void> scratch_;
    std::size_t begin_ = 0;
    std::size_t end_ = 0;
    std::size_t from_ = 0;
    bool matched_ = false;
};

/// The text with `content` in place of every match. Throws `error` where it becomes longer than 64 times the text and
/// a MiB, which no normalization needs and a chain of such steps would multiply.
std::string replaced(std::string_view text, pattern const& what, std::string_view content);

/// How long a text of `size` bytes may become when it is normalized.
constexpr std::size_t longest_replacement(std::size_t size) { return 64 * size + (std::size_t{1} << 20); }

} // namespace detent::inline DETENT_ABI::text

#if !defined(DETENT_COMPILED)
#include "detent/core/needs_exceptions.hpp"
#include "detent/text/pattern.ipp" // IWYU pragma: export
#endif

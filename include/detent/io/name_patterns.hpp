// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <regex>
#include <string>

#include "detent/core/needs_exceptions.hpp"
#include "detent/io/json.hpp"
#include "detent/io/quantization_settings.hpp"

namespace detent::inline DETENT_ABI::io {

/// A regular expression in settings, which names must match from their beginning on, as Python's `re.match` has it.
class name_pattern {
public:
    /// @throws error naming `field` of `settings` when it is not understood: it is read as one of ECMAScript, whose
    /// expressions are those of Python but for rare ones.
    name_pattern(std::string const& text, quantization_settings const& settings, std::string const& field) {
        try {
            expression_.assign(text, std::regex::ECMAScript | std::regex::optimize);
        } catch (std::regex_error const&) {
            throw settings.wrong(field,
                                 "has the regular expression '" + printable(text) + "', which is not understood");
        }
    }

    bool matches(std::string const& name) const {
        return std::regex_search(name, expression_, std::regex_constants::match_continuous);
    }

private:
    std::regex expression_;
};

/// The regular expression of this very name.
inline std::string escaped_name(std::string const& name) {
    std::string escaped;
    for (char const c : name) {
        escaped += c == '.' ? "\\." : std::string(1, c);
    }
    return escaped;
}

} // namespace detent::inline DETENT_ABI::io

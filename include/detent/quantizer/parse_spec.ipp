// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "detent/core/error.hpp"
#include "detent/quantizer/parse_spec.hpp"
#include "detent/quantizer/vocabulary.hpp"
#include "detent/quantizer/word.hpp"

namespace detent::inline DETENT_ABI {

namespace vocabulary {

/// Reads the parts of one specification.
class reader {
public:
    explicit reader(std::string_view text) { spec_.text = text; }

    /// Reads a part. @throws error when it is no word or names something a second time.
    void read(std::string_view part) {
        word const* const found = part.empty() ? nullptr : find(part);
        if (!found) {
            throw wrong(part.empty() ? "empty part" : "unknown part", part);
        }
        for (std::string_view const noun : found->once) {
            if (!noun.empty() && names(noun)) {
                throw wrong("names a second " + std::string(noun) + ",", part);
            }
        }
        words_.push_back(found);
    }

    /// The specification, when all parts are read. @throws error when they contradict each other.
    spec finish() {
        if (spec_.grid.name.empty()) {
            throw error(subject(), "names no grid, such as int4, e2m1 or nf4");
        }
        for (word const* w : words_) {
            if (!w->otherwise.noun.empty() && !names(w->otherwise.noun)) {
                w->otherwise.sets(spec_);
            }
        }
        for (word const* w : words_) {
            for (need const& n : w->needs) {
                if (n.met && !n.met(spec_)) {
                    throw error(subject(), std::string(w->called()) + " " + std::string(n.says));
                }
            }
        }
        return spec_;
    }

private:
    /// The word that the part is, which then is set; null if there is none.
    word const* find(std::string_view part) {
        for (section const& s : sections) {
            for (word const& w : s.words) {
                if (w.accepts(spec_, part)) {
                    return &w;
                }
                if (!w.complaint.empty() && part.starts_with(w.name)) {
                    throw wrong(std::string(w.complaint), part);
                }
            }
        }
        return nullptr;
    }

    bool names(std::string_view noun) const {
        return std::ranges::any_of(words_,
                                   [&](word const* w) { return std::ranges::find(w->once, noun) != w->once.end(); });
    }

    std::string subject() const { return "specification '" + spec_.text + "'"; }
    error wrong(std::string const& why, std::string_view part) const {
        return error(subject(), why + " '" + std::string(part) + "'");
    }

    spec spec_;
    std::vector<word const*> words_;
};

} // namespace vocabulary

DETENT_INLINE spec spec::parse(std::string_view text) {
    vocabulary::reader reader(text);
    for (std::string_view rest = text;;) {
        auto const colon = rest.find(':');
        reader.read(rest.substr(0, colon));
        if (colon == rest.npos) {
            return reader.finish();
        }
        rest.remove_prefix(colon + 1);
    }
}

} // namespace detent::inline DETENT_ABI

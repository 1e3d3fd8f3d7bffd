// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <algorithm>
#include <set>
#include <string>

#include <gtest/gtest.h>

#include "detent/quantizer/parse_spec.hpp"
#include "detent/quantizer/vocabulary.hpp"
#include "io/failure_message.hpp"

namespace {

using namespace detent;
using vocabulary::word;

/// Calls `f(word)` with every word.
template <class F> void for_each_word(F const& f) {
    for (auto const& s : vocabulary::sections) {
        for (word const& w : s.words) {
            f(w);
        }
    }
}

TEST(vocabulary, entries_are_complete) {
    std::set<std::string> examples;
    for_each_word([&](word const& w) {
        EXPECT_FALSE(w.name.empty());
        EXPECT_FALSE(w.help.empty() || w.help.ends_with('.')) << w.name;
        EXPECT_EQ(std::ranges::count(w.help, '`') % 2, 0) << w.name;
        EXPECT_EQ(w.sets != nullptr, w.value.empty()) << w.name;
        EXPECT_EQ(w.reads != nullptr, !w.value.empty()) << w.name;
        EXPECT_TRUE(w.complaint.empty() || w.complaint.ends_with(':')) << w.name;
        EXPECT_EQ(w.otherwise.noun.empty(), w.otherwise.sets == nullptr) << w.name;
        for (auto const& n : w.needs) {
            EXPECT_EQ(n.met == nullptr, n.says.empty()) << w.name;
        }
        EXPECT_TRUE(examples.insert(w.example()).second) << w.example() << " is there twice";
    });
}

TEST(vocabulary, no_word_is_taken_for_another) {
    for_each_word([](word const& meant) {
        std::string const part = meant.example();
        word const* first = nullptr;
        for_each_word([&](word const& w) {
            spec s;
            bool const accepted = w.accepts(s, part);
            EXPECT_EQ(accepted, &w == &meant) << part << " is read as " << w.example();
            first = !first && (accepted || (!w.complaint.empty() && part.starts_with(w.name))) ? &w : first;
        });
        EXPECT_EQ(first, &meant) << part; // nobody complains of it before
    });
}

TEST(vocabulary, every_word_can_be_used) {
    for_each_word([](word const& w) {
        std::string const part = w.example();
        int understood = 0;
        std::string message;
        // A grid, if the word is none, and what some words need.
        for (auto const* const rest : {"", ":int4", ":int4:gptq", ":int4:gptaq", ":int4:obq", ":int4:owq@3.1",
                                       ":int4:lwc", ":fp4:a=fp4", ":fp4:a=fp4:fpq"}) {
            message = failure_message([&] { spec::parse(part + rest); });
            understood += message.empty() ? 1 : 0;
        }
        EXPECT_GT(understood, 0) << part << ": " << message;
    });
}

TEST(vocabulary, what_is_named_once_is_named_once) {
    for_each_word([](word const& w) {
        std::string const part = w.example();
        std::string const message = failure_message([&] { spec::parse(part + ":" + part); });
        bool const repeats = contains(message, "names a second " + std::string(w.once.front()) + ", '" + part + "'");
        EXPECT_EQ(repeats, !w.once.front().empty()) << part << ": " << message;
    });
}

TEST(vocabulary, every_need_is_checked) {
    auto const unmet = [](word const& w, vocabulary::need const& n) {
        for (auto const* const rest :
             {":int4", ":fp4", ":int4:owq=2", ":int4:mse", ":int4:tensor", ":mxfp4", ":int4:a=int8@tensor",
              ":int4:search", ":int4:lwc", ":int4:shifts", ":int4:smooth", ":fp4:a=fp4:fpq", ":int4:obq", ":mse",
              ":lwc", ":owq=2", ":gptaq"}) {
            std::string const message = failure_message([&] { spec::parse(w.example() + rest); });
            if (message.ends_with(": " + std::string(w.called()) + " " + std::string(n.says))) {
                return true;
            }
        }
        return false;
    };
    for_each_word([&](word const& w) {
        for (auto const& n : w.needs) {
            EXPECT_TRUE(!n.met || unmet(w, n)) << w.example() << " " << n.says;
        }
    });
}

} // namespace

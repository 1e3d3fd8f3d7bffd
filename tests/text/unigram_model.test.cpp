// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <cstddef>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "detent/text/unigram_model.hpp"
#include "text_support.hpp"

namespace {

using namespace detent::text;
using nlohmann::json;

// The largest sum of scores of all ways to write `text`, tried one after the other.
double best_score(json const& vocab, std::string const& text) {
    if (text.empty()) {
        return 0;
    }
    double best = -std::numeric_limits<double>::infinity();
    for (auto const& entry : vocab) {
        auto const& token = entry[0].get_ref<std::string const&>();
        if (text.compare(0, token.size(), token) == 0) {
            best = std::max(best, entry[1].get<double>() + best_score(vocab, text.substr(token.size())));
        }
    }
    return best;
}

TEST(unigram_model, finds_the_best_of_all_ways) {
    std::mt19937 random(1);
    for (int round = 0; round < 50; ++round) {
        json model{{"type", "Unigram"}, {"vocab", json_of(R"([["a", -3.5], ["b", -2.5]])")}};
        for (int i = 0; i < 8; ++i) {
            std::string token;
            for (std::size_t n = 2 + random() % 3; n > 0; --n) {
                token += "ab"[random() % 2];
            }
            if (std::ranges::none_of(model["vocab"], [&](json const& e) { return e[0] == token; })) {
                model["vocab"].push_back({token, -1.0 - static_cast<double>(random() % 1000) / 100});
            }
        }
        for (int i = 0; i < 10; ++i) {
            std::string text;
            for (std::size_t n = 1 + random() % 10; n > 0; --n) {
                text += "ab"[random() % 2];
            }
            double score = 0;
            std::string written;
            for (auto const id : encoded(model, text)) {
                auto const& entry = model["vocab"][static_cast<std::size_t>(id)];
                score += entry[1].get<double>();
                written += entry[0].get<std::string>();
            }
            ASSERT_EQ(written, text);
            ASSERT_NEAR(score, best_score(model["vocab"], text), 1e-9);
        }
    }
}

TEST(unigram_model, unknown_characters) {
    json model = json_of(R"({"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0], ["a", -1], ["<0xC3>", -1]]})");
    EXPECT_EQ(encoded(model, "xxa\u00E4x"), (ids{0, 1, 0}));
    model["byte_fallback"] = true;
    EXPECT_EQ(encoded(model, "a\u00E4"), (ids{1, 0})); // a byte without a token
    model["vocab"].push_back({"<0xA4>", -1});
    EXPECT_EQ(encoded(model, "a\u00E4"), (ids{1, 2, 3}));
    model["unk_id"] = nullptr;
    EXPECT_TRUE(contains(failure_message([&] { encoded(model, "x"); }), "there is no unk_id"));
}

TEST(unigram_model, refuses_what_is_wrong) {
    auto const problem = [](char const* vocab, int unknown) {
        json const model{{"type", "Unigram"}, {"unk_id", unknown}, {"vocab", json_of(vocab)}};
        return failure_message([&] { encoded(model, "a"); });
    };
    EXPECT_EQ(problem(R"([["a", -1]])", 1), "model, field 'unk_id': is 1, beyond the vocabulary of 1 tokens");
    EXPECT_TRUE(contains(problem("[]", 0), "beyond the vocabulary"));
    EXPECT_TRUE(contains(problem(R"([["a", -1]])", -1), "is -1; expected"));
    EXPECT_TRUE(contains(problem(R"([["a", -1], ["a", -2]])", 0), "repeats the token 'a'"));
    EXPECT_TRUE(contains(problem(R"([["a"]])", 0), "not a token and its log probability"));
    EXPECT_TRUE(contains(problem(R"([[1, 2]])", 0), "not a token and its log probability"));
    EXPECT_TRUE(contains(problem("{}", 0), "is not an array"));
    EXPECT_EQ(problem(R"([["", -1], ["a", -1]])", 0), ""); // an empty token is never used
}

} // namespace

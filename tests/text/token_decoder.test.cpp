// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "detent/text/token_decoder.hpp"
#include "text_support.hpp"

namespace {

using namespace detent::text;

std::string decoded(std::string const& json, std::vector<std::string> const& tokens) {
    auto const parsed = json_of(json);
    return token_decoder(part(parsed, "decoder"))(tokens);
}

TEST(token_decoder, types) {
    EXPECT_EQ(token_decoder()({"a", "b"}), "a b");
    EXPECT_EQ(decoded(R"({"type": "ByteLevel"})", {"\u00C3", "\u00A9\u0120a", "\u4E2D"}), "\u00E9 a\u4E2D");
    EXPECT_EQ(decoded(R"({"type": "ByteLevel"})", {"\u00C3", "a"}), "\uFFFDa");
    EXPECT_EQ(decoded(R"({"type": "ByteFallback"})", {"a", "<0xC3>", "<0xa9>", "<0xZ9>"}), "a\u00E9<0xZ9>");
    EXPECT_EQ(decoded(R"({"type": "ByteFallback"})", {"<0x41>", "<0xC3>", "b"}), "\uFFFD\uFFFDb");
    EXPECT_EQ(decoded(R"({"type": "Metaspace", "replacement": "_"})", {"_a", "_b"}), "a b");
    EXPECT_EQ(decoded(R"({"type": "Metaspace", "replacement": "_", "prepend_scheme": "never"})", {"_a", "_b"}), " a b");
    EXPECT_EQ(decoded(R"({"type": "Strip", "content": " ", "start": 1, "stop": 2})", {"  a   ", " "}), " a ");
    EXPECT_EQ(decoded(R"({"type": "WordPiece", "prefix": "##", "cleanup": true})", {"un", "##able", ".", "do", "n't"}),
              "unable. don't");
    EXPECT_EQ(decoded(R"({"type": "WordPiece", "prefix": "##", "cleanup": false})", {"a", "."}), "a .");
    EXPECT_EQ(decoded(R"({"type": "BPEDecoder", "suffix": "</w>"})", {"a", "b</w>", "c</w>"}), "ab c");
    EXPECT_EQ(decoded(R"({"type": "Fuse"})", {}), "");
}

TEST(token_decoder, of_llama) {
    NEEDS_UNICODE();
    std::string const json = R"({"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"},
        {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]})";
    EXPECT_EQ(decoded(json, {"\u2581\u2581a", "\u2581b", "<0xC3>", "<0xA9>"}), " a b\u00E9");
}

TEST(token_decoder, refuses_what_it_does_not_know) {
    EXPECT_EQ(problem_of<token_decoder>({{"type", "CTC"}}), "part: is of type 'CTC', which detent does not read");
    EXPECT_TRUE(contains(problem_of<token_decoder>({{"type", "Strip"}, {"content", " "}, {"start", -1}, {"stop", 0}}),
                         "is -1; expected"));
}

} // namespace

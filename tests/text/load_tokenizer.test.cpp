// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <filesystem>
#include <string>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "detent/io/text_file.hpp"
#include "detent/text/load_tokenizer.hpp"
#include "io/temporary_directory.hpp"
#include "text_support.hpp"

namespace {

using namespace detent::text;

class load_tokenizer_test : public ::testing::Test {
protected:
    void write(std::string const& name, std::string const& text) { detent::io::write_text(directory_ / name, text); }
    ids encoded(std::string const& text) const { return load_tokenizer(directory_.path()).encode(text, true); }
    std::string problem() const {
        return failure_message([&] { load_tokenizer(directory_.path()); });
    }

    temporary_directory directory_;
};

TEST_F(load_tokenizer_test, nothing) {
    EXPECT_TRUE(contains(problem(), "has no tokenizer: none of tokenizer.json"));
    EXPECT_FALSE(has_tokenizer(directory_.path()));
    write("a.bin", "");
    EXPECT_TRUE(contains(failure_message([&] { load_tokenizer(directory_ / "a.bin"); }), "is no file of a tokenizer"));
    EXPECT_TRUE(contains(failure_message([&] { load_tokenizer(directory_ / "b.json"); }), "b.json"));
}

TEST_F(load_tokenizer_test, tokenizer_json_comes_first) {
    write("tokenizer.json", R"({"model": {"type": "BPE", "vocab": {"a": 7}, "merges": []}})");
    write("vocab.txt", "[UNK]\n");
    EXPECT_TRUE(has_tokenizer(directory_.path()));
    EXPECT_EQ(encoded("a"), ids{7});
    EXPECT_EQ(load_tokenizer(directory_ / "tokenizer.json").encode("aa", true), (ids{7, 7}));
    write("tokenizer.json", R"({"model": {"type": "BPE", "type": "BPE"}})");
    EXPECT_TRUE(contains(problem(), "repeats the key 'type'"));
    write("tokenizer.json", "{\"model\": {\"type\": \"\xFF\"}}");
    EXPECT_TRUE(contains(problem(), "is not valid JSON"));
}

TEST_F(load_tokenizer_test, vocab_json_with_merges) {
    NEEDS_UNICODE();
    write("vocab.json", R"({"a": 0, "b": 1, "ab": 2, "\u0120": 3, "\u0120a": 4, "<|endoftext|>": 5, "\u00c3": 6})");
    EXPECT_TRUE(contains(problem(), "merges.txt"));
    write("merges.txt", "#version: 0.2\na b\r\n\u0120 a\n\n");
    EXPECT_EQ(encoded("ab a<|endoftext|>"), (ids{2, 4, 5}));
    EXPECT_EQ(load_tokenizer(directory_ / "merges.txt").decode(ids{2, 4}), "ab a");
    write("tokenizer_config.json", R"({"add_prefix_space": true, "add_bos_token": true,
                                       "bos_token": {"content": "<|endoftext|>"},
                                       "tokenizer_class": "GPT2TokenizerFast"})");
    EXPECT_EQ(encoded("a"), (ids{5, 4}));
    write("tokenizer_config.json", R"({"tokenizer_class": "CLIPTokenizer"})");
    EXPECT_TRUE(contains(problem(), "'CLIPTokenizer', which detent reads only from a tokenizer.json"));
    write("tokenizer_config.json", R"({"add_bos_token": true, "bos_token": "<none>"})");
    EXPECT_TRUE(contains(problem(), "has no token '<none>'"));
    write("vocab.json", "[]");
    EXPECT_TRUE(contains(problem(), "is not an object"));
}

TEST_F(load_tokenizer_test, of_qwen2_and_roberta) {
    NEEDS_UNICODE();
    write("vocab.json", R"({"1": 0, "2": 1, "12": 2, "<s>": 3, "</s>": 4, "<mask>": 5, "\u0120": 6})");
    write("merges.txt", "1 2\n");
    EXPECT_EQ(encoded("12"), ids{2});
    write("tokenizer_config.json", R"({"tokenizer_class": "Qwen2Tokenizer"})");
    EXPECT_EQ(encoded("12"), (ids{0, 1})); // digits one by one
    write("tokenizer_config.json", R"({"tokenizer_class": "RobertaTokenizer"})");
    EXPECT_EQ(encoded("12  <mask>"), (ids{3, 2, 5, 4})); // the mask takes the spaces before it
}

TEST_F(load_tokenizer_test, vocab_txt) {
    NEEDS_UNICODE();
    write("vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\nhello\n##s\r\n!\n");
    EXPECT_EQ(encoded("Hell\u00F2s! x[SEP]"), (ids{2, 4, 5, 6, 1, 3, 3}));
    EXPECT_EQ(load_tokenizer(directory_.path()).decode(ids{2, 4, 5, 6, 3}, true), "hellos!");
    write("tokenizer_config.json", R"({"do_lower_case": false})");
    EXPECT_EQ(encoded("hello Hello"), (ids{2, 4, 1, 3}));
    write("vocab.txt", "[UNK]\na\na\n");
    EXPECT_TRUE(contains(problem(), "line 3 repeats the token 'a'"));
    write("vocab.txt", "[UNK]\na\n");
    EXPECT_TRUE(contains(problem(), "has no token '[CLS]'"));
    write("vocab.txt", "[UNK]\n\xFF\n");
    EXPECT_TRUE(contains(problem(), "is not UTF-8"));
    write("vocab.txt", "");
    EXPECT_NE(problem(), "");
}

TEST_F(load_tokenizer_test, without_libraries_it_says_so) {
#if !defined(DETENT_UNICODE)
    write("vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\n");
    EXPECT_TRUE(contains(failure_message([&] { encoded("a"); }), "without PCRE2 and utf8proc"));
#endif
}

TEST(load_tokenizer, of_minilm) {
    NEEDS_UNICODE();
    auto const directory = shared("models/all-MiniLM-L6-v2");
    if (!std::filesystem::exists(directory)) {
        GTEST_SKIP() << directory << " is missing";
    }
    auto const t = load_tokenizer(directory);
    // The first pair of stsb_dev.ids.jsonl.
    EXPECT_EQ(t.encode("A man with a hard hat is dancing.", true),
              (ids{101, 1037, 2158, 2007, 1037, 2524, 6045, 2003, 5613, 1012, 102}));
    EXPECT_EQ(t.encode("A man wearing a hard hat is dancing.", true),
              (ids{101, 1037, 2158, 4147, 1037, 2524, 6045, 2003, 5613, 1012, 102}));
    EXPECT_EQ(t.largest_id(), 30521);
}

} // namespace

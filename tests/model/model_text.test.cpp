// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "detent/io/text_file.hpp"
#include "detent/io/tokens.hpp"
#include "detent/model/model_text.hpp"
#include "io/failure_message.hpp"
#include "io/temporary_directory.hpp"

namespace detent {

namespace {

using ids = std::vector<nn::token_id>;

/// A model of `vocabulary` tokens with files in a directory of its own.
class model_text_test : public ::testing::Test {
protected:
    std::filesystem::path write(std::string const& name, std::string const& text) {
        io::write_text(directory_ / name, text);
        return directory_ / name;
    }

    /// Letters a to d are tokens 0 to 3, token 4 is special; `around` says what is put around a text.
    void write_tokenizer(std::string const& around = "null") {
        write("tokenizer.json", R"({"model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "c": 2, "d": 3}, "merges": []},
            "added_tokens": [{"id": 4, "content": "<s>", "special": true}], "post_processor": )" +
                                    around + "}");
    }

    model_text text(index_t vocabulary, std::optional<index_t> begin = {}, std::vector<index_t> end = {}) const {
        return {directory_.path(), {.vocabulary = vocabulary, .begin_of_text = begin, .end_of_text = std::move(end)}};
    }

    static ids read(model_text const& t, std::vector<std::filesystem::path> const& files) { return t.read(files); }

    static constexpr char const* begins = R"({"type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [4]}}})";

    temporary_directory directory_;
};

TEST_F(model_text_test, bytes_of_a_model_of_256_tokens) {
    auto const plain = write("a.txt", "a\xFF");
    auto const lines = write("b.jsonl", "{\"text\": \"b\"}\n\n{\"text\": \"c\", \"n\": 1}\n");
    auto const numbers = write("c.u16", std::string("\x05\x00\xFF\x00", 4));
    auto const t = text(256, 7, {9});
    EXPECT_TRUE(t.has_text());
    EXPECT_EQ(read(t, {plain, lines, numbers}), (ids{'a', 255, 'b', 'c', 5, 255}));
    EXPECT_EQ(t.prompt("Ab"), (ids{'A', 'b'}));
    EXPECT_EQ(t.prompt(""), ids{7});
    token_writer writer(t);
    EXPECT_EQ(writer.push('x') + writer.push(200) + writer.finish(), "x\xC8");
    auto const wrong = write("d.u16", std::string("\x05\x00\x00\x01", 4));
    std::string const problem = failure_message([&] { read(t, {plain, wrong}); });
    EXPECT_TRUE(contains(problem, "d.u16"));
    EXPECT_TRUE(contains(problem, "token 1 is 256"));
}

TEST_F(model_text_test, no_text_without_a_tokenizer) {
    auto const plain = write("a.txt", "abc");
    auto const numbers = write("c.u32", std::string("\x05\x00\x00\x00", 4));
    auto const t = text(32000);
    EXPECT_FALSE(t.has_text());
    EXPECT_EQ(read(t, {numbers}), ids{5});
    std::string const problem = failure_message([&] { read(t, {numbers, plain}); });
    EXPECT_TRUE(contains(problem, "a.txt"));
    EXPECT_TRUE(contains(problem, "no tokenizer"));
    EXPECT_TRUE(contains(failure_message([&] { t.prompt("a"); }), "prompt"));
    token_writer writer(t);
    EXPECT_EQ(writer.push(17) + writer.push(4), "17 4 ");
}

TEST_F(model_text_test, texts_are_apart_where_the_tokenizer_adds_nothing) {
    write_tokenizer();
    auto const first = write("a.txt", "ab");
    auto const second = write("b.jsonl", "{\"text\": \"c\"}\n{\"text\": \"d\"}\n");
    EXPECT_EQ(read(text(5, {}, {4, 3}), {first, second}), (ids{0, 1, 4, 2, 4, 3}));
    EXPECT_EQ(read(text(5), {first, second}), (ids{0, 1, 2, 3}));
    EXPECT_EQ(text(5).prompt("ab<s>"), (ids{0, 1, 4}));
    EXPECT_TRUE(contains(failure_message([&] { text(5).prompt(""); }), "no token that begins a text"));
    EXPECT_EQ(text(5, 3).prompt(""), ids{3});
    std::string const problem = failure_message([&] { read(text(3), {first, second}); });
    EXPECT_TRUE(contains(problem, "b.jsonl, line 2"));
    EXPECT_TRUE(contains(problem, "token 0 is 3"));
}

TEST_F(model_text_test, texts_begin_as_the_tokenizer_says) {
    write_tokenizer(begins);
    auto const file = write("a.txt", "ab");
    EXPECT_EQ(read(text(5, {}, {3}), {file, file}), (ids{4, 0, 1, 4, 0, 1}));
    EXPECT_EQ(text(5, 3).prompt("a"), (ids{4, 0}));
    EXPECT_EQ(text(5, 3).prompt(""), ids{4});
    auto const t = text(5);
    token_writer writer(t);
    EXPECT_EQ(writer.push(4) + writer.push(1) + writer.finish(), "b");
}

TEST_F(model_text_test, a_prompt_is_not_ended) {
    write_tokenizer(R"({"type": "BertProcessing", "sep": ["<s>", 4], "cls": ["d", 3]})");
    EXPECT_EQ(text(5).prompt("a"), (ids{3, 0}));
    EXPECT_EQ(read(text(5), {write("a.txt", "a")}), (ids{3, 0, 4}));
}

TEST_F(model_text_test, novella_and_its_ids) {
#if !defined(DETENT_UNICODE)
    GTEST_SKIP() << "built without PCRE2 and utf8proc";
#endif
    auto const directory = std::filesystem::path(DETENT_SHARED_DIR) / "models/novella-30m";
    if (!std::filesystem::exists(directory)) {
        GTEST_SKIP() << directory << " is missing";
    }
    model_text const t(directory, read_configuration(directory / "config.json"));
    for (std::string const name : {"evaluation", "calibration"}) {
        EXPECT_TRUE(read(t, {directory / (name + ".txt")}) == io::read_tokens(directory / (name + ".tokens.u16")));
    }
    EXPECT_EQ(t.prompt(""), ids{8191});
}

} // namespace

} // namespace detent

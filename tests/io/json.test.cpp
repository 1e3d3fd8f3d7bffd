// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <string>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "detent/io/json.hpp"
#include "detent/io/text_file.hpp"
#include "failure_message.hpp"
#include "temporary_directory.hpp"

namespace {

using detent::io::parse_json;
using detent::io::printable;

std::string problem(std::string const& text) {
    return failure_message([&] { parse_json(text, "subject"); });
}

TEST(json, parses) {
    auto const value = parse_json(R"({"a": [1, -2.5, null, true], "b": {"a": "\u00e9"}, "c": {"a": 1}} )", "subject");
    EXPECT_EQ(value["a"][1], -2.5);
    EXPECT_EQ(value["b"]["a"], "\xC3\xA9");
    EXPECT_EQ(value.size(), 3);
}

TEST(json, reports_syntax_in_one_line) {
    EXPECT_EQ(problem("[1, 2").find("subject: is not valid JSON: parse error at line 1, column 6"), 0);
    EXPECT_TRUE(contains(problem(""), "is not valid JSON"));
    EXPECT_TRUE(contains(problem("{} {}"), "is not valid JSON"));
    EXPECT_TRUE(contains(problem("[1e999]"), "is not valid JSON"));
    EXPECT_TRUE(contains(problem("[\"\xC0\x80\"]"), "is not valid JSON"));
    EXPECT_TRUE(contains(problem(std::string("{}\0 hidden", 10)), "zero byte"));
    EXPECT_FALSE(contains(problem("[\"\n"), "\n"));
    EXPECT_LT(problem("[" + std::string(100000, 'x')).size(), 300);
}

TEST(json, rejects_repeated_keys) {
    EXPECT_TRUE(contains(problem(R"({"a": 1, "b": {"c": [{"d": 1, "d": 1}]}})"), "repeats the key 'd'"));
    EXPECT_TRUE(contains(problem(R"({"a": {"a": 1}, "\u0061": 1})"), "repeats the key 'a'"));
    EXPECT_EQ(problem(R"([{"a": {"a": 1}}, {"a": 1}])"), "");
}

TEST(json, limits_nesting) {
    EXPECT_EQ(problem(std::string(64, '[') + std::string(64, ']')), "");
    for (std::string const opening : {"[", "{\"a\":"}) {
        std::string bomb;
        for (int i = 0; i < 1'000'000; ++i) {
            bomb += opening;
        }
        EXPECT_TRUE(contains(problem(bomb), "is nested deeper than 64 levels"));
    }
}

TEST(json, printable_text_is_short_whole_and_on_one_line) {
    EXPECT_EQ(printable("caf\xC3\xA9\n\x7F"), "caf\xC3\xA9??");
    EXPECT_EQ(printable(std::string(200, 'x')), std::string(200, 'x'));
    EXPECT_EQ(printable(std::string(199, 'x') + "\xC3\xA9"), std::string(199, 'x') + "...");
}

TEST(json, read_json_names_the_file) {
    temporary_directory const directory;
    auto const path = directory / "a.json";
    detent::io::write_text(path, R"({"a": 3})");
    EXPECT_EQ(detent::io::read_json(path)["a"], 3);
    detent::io::write_text(path, "");
    EXPECT_EQ(failure_message([&] { detent::io::read_json(path); }).find(path.string() + ": is not valid JSON"), 0);
}

} // namespace

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

TEST(json, limits_values_before_memory_is_used) {
    auto const list = [](std::string const& item, std::size_t count) {
        std::string text = "[";
        for (std::size_t i = 0; i < count; ++i) {
            text += item + ",";
        }
        return text + "0]";
    };
    std::size_t const most = detent::io::json_limits{}.values;
    for (std::string const item : {"[]", "{}", "1", "\"a,[\\\",\""}) { // what is in a string is no value
        std::size_t const half = item == "[]" || item == "{}" ? 2 : 1;
        EXPECT_TRUE(contains(problem(list(item, most / half)), "subject: has more than")) << item;
    }
    EXPECT_EQ(problem("\"" + std::string(most + 10, ',') + "\""), "");
}

TEST(json, takes_linear_time) { // quadratic time would be that of 10^10 steps
    std::string text = "[";
    for (int i = 0; i < 200'000; ++i) {
        text += "{},[{}],";
    }
    EXPECT_EQ(parse_json(text + "0]", "subject").size(), 400'001U);
}

/// The members of an object, each with its value as text.
std::string members_of(std::string const& text) {
    std::string all;
    detent::io::parse_members(text, "subject", [&](std::string const& key, nlohmann::json const& value) {
        all += key + "=" + value.dump() + ";";
    });
    return all;
}

TEST(json, members_come_one_after_the_other) {
    EXPECT_EQ(members_of(R"({"b": [1, {"x": {}}], "a": {"c": {"d": null}}, "b": 2, "e": "", "f": [], "g": {}})"),
              R"(b=[1,{"x":{}}];a={"c":{"d":null}};b=2;e="";f=[];g={};)");
    EXPECT_EQ(members_of("{}"), "");
    auto const wrong = [](std::string const& text) { return failure_message([&] { members_of(text); }); };
    for (auto const* const text : {"[]", "1", "null", "[{}]", "\"a\""}) {
        EXPECT_EQ(wrong(text), "subject: is not an object") << text;
    }
    EXPECT_TRUE(contains(wrong(R"({"a": 1, "b": )"), "is not valid JSON"));
    EXPECT_TRUE(contains(wrong(R"({"a": {"b": 1, "b": 1}})"), "repeats the key 'b'"));
    EXPECT_TRUE(contains(wrong(std::string(100, '{')), "is not valid JSON"));
    std::string deep = "{\"a\":";
    deep += std::string(64, '[') + std::string(64, ']') + "}";
    EXPECT_TRUE(contains(wrong(deep), "is nested deeper than 64 levels"));
    std::string many = "{\"a\":[";
    for (std::size_t i = 0; i < detent::io::json_limits{}.values_of_member; ++i) {
        many += "0,";
    }
    EXPECT_TRUE(contains(wrong(many + "0]}"), "subject: 'a' has more than"));
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

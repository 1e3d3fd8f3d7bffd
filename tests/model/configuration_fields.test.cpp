// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <functional>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "detent/model/configuration_fields.hpp"

namespace detent {

namespace {

nlohmann::json const sample = nlohmann::json::parse(R"({
    "count": 12, "zero": 0, "huge": 18446744073709551615, "half": 0.5, "word": "abc", "on": true, "off": false,
    "nothing": null, "list": [1, 2.5], "words": ["a", "b"], "ids": [3, -1, 99, 7], "one_id": 4, "none": [],
    "object": {"inner": 3, "odd": 1}, "twin": 12, "other": 13})");

/// What the error of `f` says.
std::string message(std::function<void(configuration_fields const&)> const& f) {
    configuration_fields const fields(sample, "file");
    try {
        f(fields);
    } catch (error const& e) {
        return e.what();
    }
    return "no error";
}

} // namespace

TEST(configuration_fields, read_values_or_what_stands_for_a_missing_one) {
    configuration_fields const fields(sample, "file");
    EXPECT_EQ(fields.file(), "file");
    EXPECT_EQ(fields.size("count"), 12);
    EXPECT_EQ(fields.size("nothing", 5), 5);
    EXPECT_EQ(fields.size("absent", 6), 6);
    EXPECT_EQ(fields.size_or_none("zero"), 0);
    EXPECT_EQ(fields.size_or_none("count"), 12);
    EXPECT_EQ(fields.size_or_none("absent", 4), 4);
    EXPECT_EQ(fields.positive("half", 1.0), 0.5);
    EXPECT_EQ(fields.positive("absent", 1.0), 1.0);
    EXPECT_FALSE(fields.positive("absent").has_value());
    EXPECT_TRUE(fields.flag("on", false));
    EXPECT_FALSE(fields.flag("off", true));
    EXPECT_TRUE(fields.flag("nothing", true));
    EXPECT_EQ(fields.text("word"), "abc");
    EXPECT_EQ(fields.text("absent", "xyz"), "xyz");
    EXPECT_EQ(fields.numbers("list", 2), (std::vector<double>{1, 2.5}));
    EXPECT_EQ(fields.words("words", 2), (std::vector<std::string>{"a", "b"}));
    EXPECT_TRUE(fields.words("absent", 2).empty());
    EXPECT_TRUE(fields.has("nothing"));
    EXPECT_FALSE(fields.has("absent"));
    EXPECT_EQ(fields.find("nothing"), nullptr);
}

TEST(configuration_fields, ids_outside_the_vocabulary_are_left_out) {
    configuration_fields const fields(sample, "file");
    EXPECT_EQ(fields.token_ids("ids", 50), (std::vector<index_t>{3, 7}));
    EXPECT_EQ(fields.token_ids("one_id", 50), (std::vector<index_t>{4}));
    EXPECT_TRUE(fields.token_ids("absent", 50).empty());
    EXPECT_EQ(message([](auto const& f) { f.token_ids("words", 50); }),
              "file, field 'words': holds \"a\", which is no token id");
}

TEST(configuration_fields, names_of_one_thing_may_not_contradict_each_other) {
    configuration_fields const fields(sample, "file");
    EXPECT_EQ(fields.either({"absent", "count", "twin"}), "count");
    EXPECT_EQ(fields.either({"absent", "nothing"}), "absent");
    EXPECT_EQ(message([](auto const& f) {
                  f.either({"count", "other"});
              }),
              "file, field 'other': is 13, but count, which means the same, is 12");
}

TEST(configuration_fields, errors_name_file_and_field) {
    EXPECT_EQ(message([](auto const& f) { f.size("absent"); }), "file, field 'absent': is missing");
    EXPECT_EQ(message([](auto const& f) { f.size("zero"); }),
              "file, field 'zero': is 0; expected an integer from 1 to 16777216");
    EXPECT_EQ(message([](auto const& f) { f.size("huge"); }),
              "file, field 'huge': is 18446744073709551615; expected an integer from 1 to 16777216");
    EXPECT_EQ(message([](auto const& f) { f.size("count", 1, 11); }),
              "file, field 'count': is 12; expected an integer from 1 to 11");
    EXPECT_EQ(message([](auto const& f) { f.size("half"); }),
              "file, field 'half': is 0.5; expected an integer from 1 to 16777216");
    EXPECT_EQ(message([](auto const& f) { f.positive("zero", 1.0); }),
              "file, field 'zero': is 0; expected a positive number");
    EXPECT_EQ(message([](auto const& f) { f.flag("word", true); }),
              "file, field 'word': is \"abc\"; expected true or false");
    EXPECT_EQ(message([](auto const& f) { f.text("on"); }), "file, field 'on': is true; expected a string");
    EXPECT_EQ(message([](auto const& f) { f.text("absent"); }), "file, field 'absent': is missing");
    EXPECT_EQ(message([](auto const& f) { f.require("on", false, false); }),
              "file, field 'on': is true, which is not supported");
    EXPECT_EQ(message([](auto const& f) { f.require("absent", true, false); }),
              "file, field 'absent': is false, which is not supported");
    EXPECT_EQ(message([](auto const& f) { f.expect("word", "abd"); }),
              "file, field 'word': is \"abc\", which is not supported");
    EXPECT_EQ(message([](auto const& f) {
                  f.expect("word", "abc");
                  f.expect("absent", 7);
                  f.expect("nothing", 7);
              }),
              "no error");
    EXPECT_EQ(message([](auto const& f) { f.numbers("list", 3); }),
              "file, field 'list': is [1,2.5]; expected a list of 3 positive numbers");
    EXPECT_EQ(message([](auto const& f) { f.numbers("absent", 3); }), "file, field 'absent': is missing");
    EXPECT_NE(message([](auto const& f) { f.words("words", 3); }).find("file, field 'words'"), std::string::npos);
    EXPECT_EQ(message([](auto const& f) { f.object("word"); }), "file, field 'word': is not a JSON object");
    EXPECT_EQ(message([](auto const& f) { f.object("object")->size("absent"); }),
              "file, field 'object', field 'absent': is missing");
    EXPECT_THROW(configuration_fields(nlohmann::json::array(), "file"), error);
}

TEST(configuration_fields, what_nobody_asked_for_is_an_error_unless_it_is_off) {
    auto const json = nlohmann::json::parse(
        R"({"read": 1, "passed": 2, "null": null, "false": false, "empty": [], "bare": {}, "unknown": 0})");
    configuration_fields const fields(json, "file");
    fields.size("read");
    fields.ignore({"passed"});
    try {
        fields.expect_all_read();
        FAIL() << "accepted";
    } catch (error const& e) {
        EXPECT_STREQ(e.what(),
                     "file, field 'unknown': is 0, which is not understood; it may change what the model computes");
    }
    fields.find("unknown");
    EXPECT_NO_THROW(fields.expect_all_read());
}

} // namespace detent

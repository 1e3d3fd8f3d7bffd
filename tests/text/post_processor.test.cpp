// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <string>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "detent/text/post_processor.hpp"
#include "text_support.hpp"

namespace {

using namespace detent::text;

post_processor processor_of(std::string const& json) {
    auto const parsed = json_of(json);
    return read_post_processor(part(parsed, "part"));
}

std::string const template_json = R"({"type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
               {"SpecialToken": {"id": "[SEP]", "type_id": 0}}],
    "pair": [], "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [7, 8], "tokens": ["a", "b"]},
                                   "[SEP]": {"id": "[SEP]", "ids": [9], "tokens": ["[SEP]"]}}})";

TEST(post_processor, types) {
    EXPECT_EQ(processor_of(template_json).front, (ids{7, 8}));
    EXPECT_EQ(processor_of(template_json).back, ids{9});
    EXPECT_EQ(processor_of(R"({"type": "BertProcessing", "sep": ["s", 2], "cls": ["c", 1]})").front, ids{1});
    EXPECT_EQ(processor_of(R"({"type": "RobertaProcessing", "sep": ["s", 2], "cls": ["c", 1]})").back, ids{2});
    EXPECT_TRUE(processor_of(R"({"type": "ByteLevel", "trim_offsets": true})").front.empty());
}

TEST(post_processor, of_a_sequence_puts_one_around_the_other) {
    auto const both = processor_of(R"({"type": "Sequence", "processors": [{"type": "ByteLevel"}, )" + template_json +
                                   R"(, {"type": "BertProcessing", "sep": ["s", 2], "cls": ["c", 1]}]})");
    EXPECT_EQ(both.front, (ids{1, 7, 8}));
    EXPECT_EQ(both.back, (ids{9, 2}));
}

TEST(post_processor, refuses_what_is_wrong) {
    auto const problem = [](auto const& change) {
        auto json = json_of(template_json);
        change(json);
        return failure_message([&] { read_post_processor(part(json, "part")); });
    };
    EXPECT_TRUE(contains(problem([](auto& j) { j["type"] = "Magic"; }), "'Magic'"));
    EXPECT_TRUE(contains(problem([](auto& j) { j["single"].erase(1); }), "has no text"));
    EXPECT_TRUE(contains(problem([](auto& j) { j["single"].push_back(j["single"][1]); }), "more than one text"));
    EXPECT_TRUE(contains(problem([](auto& j) { j["special_tokens"].erase("[SEP]"); }), "field '[SEP]': is missing"));
    EXPECT_TRUE(contains(problem([](auto& j) { j["special_tokens"]["[SEP]"]["ids"] = {-4}; }), "is -4; expected"));
    EXPECT_TRUE(
        contains(problem([](auto& j) { j["single"][0] = nlohmann::json::object(); }), "'SpecialToken': is missing"));
    EXPECT_TRUE(contains(problem([](auto& j) {
                             j = {{"type", "BertProcessing"}, {"cls", {1}}, {"sep", {1}}};
                         }),
                         "is not a token and its id"));
}

} // namespace

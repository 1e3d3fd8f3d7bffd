// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <set>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "detent/model/encoder_family.hpp"
#include "io/failure_message.hpp"
#include "model/random_encoder.hpp"

namespace detent {
namespace {

template <class Families> std::vector<std::string_view> types(Families const& families) {
    std::vector<std::string_view> all;
    for (auto const& family : families) {
        all.push_back(family.type);
    }
    return all;
}

TEST(encoder_family, types_are_those_of_one_family_each) {
    auto all = types(text_encoder_families());
    auto const images = types(image_encoder_families());
    all.insert(all.end(), images.begin(), images.end());
    EXPECT_EQ(std::set(all.begin(), all.end()).size(), all.size());
}

/// The message of the error about a configuration.
std::string message(nlohmann::json const& json) {
    return failure_message([&] {
        if (json.contains("vocab_size")) {
            parse_text_encoder(json, "f");
        } else {
            parse_image_encoder(json, "f");
        }
    });
}

TEST(encoder_family, no_field_is_passed_over_that_may_change_the_model) {
    for (auto const& encoder : test::encoder_cases()) {
        auto json = encoder.make().configuration;
        EXPECT_EQ(message(json), "");
        json["attention_by_moonlight"] = false;
        EXPECT_EQ(message(json), ""); // it is off
        json["attention_by_moonlight"] = 2;
        EXPECT_EQ(message(json), "f, field 'attention_by_moonlight': is 2, which is not understood; it may change what "
                                 "the model computes")
            << json;
    }
}

} // namespace
} // namespace detent

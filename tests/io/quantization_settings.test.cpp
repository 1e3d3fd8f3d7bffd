// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "detent/io/quantization_settings.hpp"
#include "detent/io/text_file.hpp"
#include "io/failure_message.hpp"
#include "io/temporary_directory.hpp"

namespace {

using namespace detent;
using io::quantization_settings;

TEST(quantization_settings, are_found_in_the_files_that_programs_write) {
    temporary_directory const directory;
    auto const found = [&] { return quantization_settings::of(directory.path()); };
    io::write_text(directory / "config.json", "{}");
    EXPECT_TRUE(found().empty());
    io::write_text(directory / "hf_quant_config.json", R"({"quantization": {"quant_algo": "FP8", "bits": true}})");
    EXPECT_EQ(found().method(), "modelopt");
    EXPECT_EQ(found().text("quant_algo", ""), "FP8");
    EXPECT_EQ(failure_message([&] { static_cast<void>(found().integer("bits", 4)); }),
              (directory / "hf_quant_config.json").string() +
                  ", field 'quantization.bits': is not an integer of 32 bits");
    io::write_text(directory / "quant_config.json", R"({"w_bit": 4})");
    EXPECT_EQ(found().method(), "awq");
    io::write_text(directory / "quantize_config.json", R"({"bits": 4})");
    EXPECT_EQ(found().method(), "gptq");
    EXPECT_EQ(found().integer("bits", 0), 4);
    io::write_text(directory / "config.json", R"({"quantization_config": null})");
    EXPECT_EQ(found().method(), "gptq");
    io::write_text(directory / "config.json", R"({"quantization_config": {"quant_method": "AWQ"}})");
    EXPECT_EQ(found().method(), "awq") << "config.json counts";
    io::write_text(directory / "config.json", R"({"quantization_config": {"format": "detent"}})");
    EXPECT_EQ(found().method(), "detent");
    io::write_text(directory / "config.json", R"({"quantization_config": 4})");
    EXPECT_TRUE(contains(failure_message(found), "is not an object"));
}

TEST(quantization_settings, fields_have_the_type_that_they_must_have) {
    quantization_settings const s({{"a", 1}, {"b", "x"}, {"c", true}, {"d", {{"e", 2}}}, {"f", nullptr}}, "file");
    EXPECT_EQ(s.integer("a", 0), 1);
    EXPECT_EQ(s.integer("f", 7), 7);
    EXPECT_EQ(s.text("b", ""), "x");
    EXPECT_EQ(s.text("g", "none"), "none");
    EXPECT_TRUE(s.truth("c", false));
    EXPECT_EQ(s.object("d")->integer("e", 0), 2);
    EXPECT_FALSE(s.object("f").has_value());
    EXPECT_FALSE(s.has("f"));
    EXPECT_EQ(failure_message([&] { static_cast<void>(s.text("a", "")); }), "file, field 'a': is not a text");
    EXPECT_EQ(failure_message([&] { static_cast<void>(s.truth("a", false)); }),
              "file, field 'a': is neither true nor false");
    EXPECT_EQ(failure_message([&] { static_cast<void>(s.object("a")); }), "file, field 'a': is not an object");
    EXPECT_EQ(failure_message([&] { s.object("d")->expect("e", "x"); }), "file, field 'd.e': is not a text");
    EXPECT_EQ(failure_message([&] { s.expect("b", "y"); }), "file, field 'b': is 'x'; only 'y' is read");
}

} // namespace

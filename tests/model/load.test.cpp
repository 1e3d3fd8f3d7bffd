// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "detent/model/load.hpp"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <limits>

#include <gtest/gtest.h>

#include "random_decoder.hpp"

namespace detent {

namespace {

/// A directory with a random model, removed at the end.
class load : public testing::TestWithParam<nlohmann::json> {
protected:
    load() {
        std::string name = testing::UnitTest::GetInstance()->current_test_info()->name();
        std::ranges::replace(name, '/', '_');
        directory_ = std::filesystem::path(testing::TempDir()) / ("detent_load_" + name);
        std::filesystem::create_directories(directory_);
    }
    ~load() override { std::filesystem::remove_all(directory_); }

    static std::string prefix() { return GetParam().at("model_type") == "opt" ? "model.decoder." : "model."; }

    /// Writes the random model, its names without the first `strip` characters of the prefix.
    void write(std::size_t strip = 0) {
        std::ofstream(directory_ / "config.json") << GetParam();
        io::safetensors_writer writer;
        for (auto const& [name, values] : source_.tensors) {
            auto const* bytes = reinterpret_cast<std::uint8_t const*>(values.data());
            std::vector<index_t> const shape =
                values.cols() == 1 ? std::vector{values.rows()} : std::vector{values.rows(), values.cols()};
            writer.add(name.starts_with(prefix()) ? name.substr(strip) : name, io::dtype::f32, shape,
                       {bytes, static_cast<std::size_t>(values.size()) * sizeof(float)});
        }
        writer.save(directory_ / "model.safetensors");
    }

    std::string message() const {
        try {
            load_decoder(directory_);
        } catch (error const& e) {
            return e.what();
        }
        return "";
    }

    std::string about(std::string const& tensor) const { return directory_.string() + ", tensor '" + tensor + "': "; }

    std::filesystem::path directory_;
    test::random_weights source_;
    decoder const original_ = assemble_decoder(parse_configuration(GetParam(), "f"), prefix(), source_);
};

} // namespace

TEST_P(load, a_saved_model_comes_back) {
    auto const tokens = test::some_tokens(12);
    std::size_t const prefix_size = prefix().size();
    for (std::size_t const strip : {std::size_t{0}, std::size_t{6}, prefix_size}) { // "model." or all of it
        write(strip);
        auto const loaded = load_decoder(directory_);
        EXPECT_EQ(loaded.forward(tokens), original_.forward(tokens));
        EXPECT_EQ(loaded.prefix, prefix().substr(strip));
        EXPECT_EQ(loaded.blocks[1].query.name, prefix().substr(strip) + "layers.1.self_attn.q_proj");
        EXPECT_EQ(loaded.blocks[1].linear(linear_role::down).shape(), (extents{12, 20}));
    }
}

TEST_P(load, missing_misshapen_and_non_finite_tensors_are_errors) {
    std::string const name = prefix() + "layers.1.self_attn.k_proj.weight";
    matrix const good = source_.tensors.at(name);

    source_.tensors.erase(name);
    write();
    EXPECT_EQ(message(), about(name) + "is missing");

    source_.tensors[name] = good.leftCols(5);
    write();
    EXPECT_EQ(message(), about(name) + "has shape [" + std::to_string(good.rows()) +
                             ", 5], but config.json asks for [" + std::to_string(good.rows()) + ", 12]");

    for (float const bad : {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
        source_.tensors[name] = good;
        source_.tensors[name](1, 2) = bad;
        write();
        EXPECT_EQ(message(), about(name) + "holds NaN or infinity");
    }

    source_.tensors[name] = good;
    write();
    EXPECT_EQ(message(), "");
}

TEST_P(load, a_bias_that_the_configuration_does_not_know_is_an_error) {
    auto json = GetParam();
    json[json.at("model_type") == "opt" ? "enable_bias" : "mlp_bias"] = false;
    write();
    std::ofstream(directory_ / "config.json") << json;
    EXPECT_NE(message().find(".bias': is there, but config.json has no such bias"), std::string::npos) << message();
}

TEST_P(load, an_untied_head_is_needed) {
    auto json = GetParam();
    json["tie_word_embeddings"] = false;
    source_.tensors.erase("lm_head.weight");
    write();
    std::ofstream(directory_ / "config.json") << json;
    EXPECT_EQ(message(), about("lm_head.weight") + "is missing");
}

INSTANTIATE_TEST_SUITE_P(families, load, testing::Values(test::llama_json(), test::opt_json()),
                         [](auto const& family) { return family.param.at("model_type").template get<std::string>(); });

} // namespace detent

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "detent/model/load.hpp"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>

#include <gtest/gtest.h>

#include "detent/grid/fp_grid.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/matrix/solution.hpp"
#include "detent/scale/minmax.hpp"
#include "detent/solver/rtn.hpp"
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

    /// Writes the random model, its names without the first `strip` characters of the prefix. `add` may add tensors;
    /// where `method` is not empty, the configuration names it as that of quantization.
    void write(std::size_t strip = 0, std::function<void(io::safetensors_writer&)> const& add = {},
               std::string const& method = {}) {
        auto json = GetParam();
        if (!method.empty()) {
            json["quantization_config"] = {{"quant_method", method}};
        }
        std::ofstream(directory_ / "config.json") << json;
        io::safetensors_writer writer;
        for (auto const& [name, values] : source_.tensors) {
            auto const* bytes = reinterpret_cast<std::uint8_t const*>(values.data());
            std::vector<index_t> const shape =
                values.cols() == 1 ? std::vector{values.rows()} : std::vector{values.rows(), values.cols()};
            writer.add(name.starts_with(prefix()) ? name.substr(strip) : name, io::dtype::f32, shape,
                       {bytes, static_cast<std::size_t>(values.size()) * sizeof(float)});
        }
        if (add) {
            add(writer);
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

TEST_P(load, embeddings_may_be_packed) {
    std::string const name = prefix() + "embed_tokens.weight";
    problem_of const p{int_grid<4>{}, per_tile{1, 5}, minmax_range{}};
    packed_matrix const packed = pack(rtn{}.solve(source_.tensors.at(name), {}, p, executor_ref{}));
    source_.tensors.erase(name);
    for (std::size_t const strip : {std::size_t{0}, prefix().size()}) {
        write(
            strip, [&](auto& writer) { io::add_packed(writer, prefix().substr(strip) + "embed_tokens", packed); },
            "detent");
        auto const loaded = load_decoder(directory_);
        EXPECT_EQ(loaded.prefix, prefix().substr(strip));
        EXPECT_EQ(std::get<packed_matrix>(loaded.embeddings.weight), packed);
    }
}

TEST_P(load, says_how_inputs_are_rounded) {
    std::string const attention = prefix() + "layers.1.self_attn.";
    std::vector<std::int8_t> const shifts{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 15};
    write(
        0,
        [&](auto& writer) {
            io::add_input(writer, attention + "q_proj", {.grid = "int8sym"});
            io::add_input(writer, attention + "k_proj", {.grid = "int4", .scales = {0.5F}, .zeros = {15.0F}});
            io::add_input(writer, attention + "v_proj", {.grid = "e3m0", .scales = {3.0F}, .shifts = shifts});
        },
        "detent");
    auto const loaded = load_decoder(directory_);
    EXPECT_FALSE(loaded.blocks[0].query.input.has_value());
    block const& b = loaded.blocks[1];
    EXPECT_EQ(b.query.input, activation_quantizer(any_grid(int_grid<8, zero::none>{})));
    EXPECT_EQ(b.query.input->grid().name(), "int8sym");
    EXPECT_EQ(b.key.input, activation_quantizer(any_grid(int_grid<4>{}), {0.5F, 15.0F}));
    EXPECT_EQ(b.value.input, activation_quantizer(any_grid(fp_grid<3, 0>{}), {3.0F, 0.0F}, shifts));
    EXPECT_FALSE(b.output.input.has_value());
}

TEST_P(load, nonsense_about_inputs_is_an_error) {
    std::string const name = prefix() + "layers.0.self_attn.k_proj";
    auto const refusal = [&](io::stored_input const& input, std::string const& method = "detent") {
        write(0, [&](auto& writer) { io::add_input(writer, name, input); }, method);
        return message();
    };
    auto const of = [](std::string const& grid, std::vector<float> scales, std::vector<float> zeros) {
        return io::stored_input{.grid = grid, .scales = std::move(scales), .zeros = std::move(zeros)};
    };
    EXPECT_EQ(refusal(of("int8sym", {0.5F}, {})), "");
    EXPECT_EQ(refusal(of("int8", {0.5F}, {255.0F})), "");
    for (std::string const grid : {"", "int9", "sym", "int8SYM"}) {
        EXPECT_EQ(refusal(of(grid, {}, {})), about(name + ".input_grid") + "names the grid '" + grid +
                                                 "', which is unknown");
    }
    std::string const zero = about(name + ".input_zero");
    EXPECT_EQ(refusal(of("int8", {0.5F}, {})), zero + "is missing, but the grid 'int8' has a zero point");
    EXPECT_EQ(refusal(of("e2m1", {0.5F}, {0.0F})), zero + "is there, but the grid 'e2m1' has no zero point");
    for (float const bad : {-1.0F, 256.0F, 0.5F, 1e30F}) {
        EXPECT_EQ(refusal(of("int8", {0.5F}, {bad})), zero + "holds what is no integer from 0 to 255");
    }
    io::stored_input wide = of("int8sym", {0.5F}, {});
    wide.shifts.assign(13, 0);
    EXPECT_EQ(refusal(wide), about(name + ".input_shifts") + "must have the shape (12)");
    for (std::string const method : {"", "gptq", "owq"}) {
        EXPECT_EQ(refusal(of("int8sym", {}, {}), method),
                  about(name + ".input_grid") + "is there, but quant_method in config.json is not 'detent'");
    }
}

INSTANTIATE_TEST_SUITE_P(families, load, testing::Values(test::llama_json(), test::opt_json()),
                         [](auto const& family) { return family.param.at("model_type").template get<std::string>(); });

} // namespace detent

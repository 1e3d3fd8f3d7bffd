// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "calibrate/tiny_models.hpp"
#include "detent/grid/fp_grid.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/io/layout_detent.hpp"
#include "detent/matrix/solution.hpp"
#include "detent/model/load.hpp"
#include "detent/scale/minmax.hpp"
#include "detent/solver/rtn.hpp"
#include "io/failure_message.hpp"
#include "io/temporary_directory.hpp"
#include "model/family_fixtures.hpp"
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
            writer.add(rename_(name.starts_with(prefix()) ? name.substr(strip) : name), io::dtype::f32, shape,
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

    /// Adds a tensor of zeros.
    static void add_zeros(io::safetensors_writer& writer, std::string const& name, std::vector<index_t> const& shape) {
        index_t size = 1;
        for (index_t const extent : shape) {
            size *= extent;
        }
        writer.add(name, io::dtype::f32, shape, std::vector<std::uint8_t>(static_cast<std::size_t>(size) * 4));
    }

    std::filesystem::path directory_;
    std::function<std::string(std::string const&)> rename_ = [](std::string const& name) { return name; };
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
        EXPECT_EQ(loaded.blocks[1].linear({linear_role::down}).shape(), (extents{12, 20}));
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
        write(
            0, [&](auto& writer) { io::add_input(writer, name, input); }, method);
        return message();
    };
    auto const of = [](std::string const& grid, std::vector<float> scales, std::vector<float> zeros) {
        return io::stored_input{.grid = grid, .scales = std::move(scales), .zeros = std::move(zeros)};
    };
    EXPECT_EQ(refusal(of("int8sym", {0.5F}, {})), "");
    EXPECT_EQ(refusal(of("int8", {0.5F}, {255.0F})), "");
    for (std::string const grid : {"", "int9", "sym", "int8SYM"}) {
        EXPECT_EQ(refusal(of(grid, {}, {})),
                  about(name + ".input_grid") + "names the grid '" + grid + "', which is unknown");
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
                  about(name + ".input_grid") +
                      "is there, but the settings in config.json are not those of detent's layout");
    }
}

TEST_P(load, the_language_model_of_a_larger_one_is_found) {
    auto const tokens = test::some_tokens(12);
    auto const expect_found = [&](std::string const& expected) {
        write();
        auto const loaded = load_decoder(directory_);
        EXPECT_EQ(loaded.prefix, expected);
        EXPECT_EQ(loaded.forward(tokens), original_.forward(tokens));
    };
    rename_ = [](std::string const& name) { return "language_model." + name; }; // the head too
    expect_found("language_model." + prefix());
    rename_ = [](std::string const& name) {
        return name.starts_with(prefix()) ? "model.language_model." + name.substr(prefix().size()) : name;
    };
    expect_found("model.language_model.");
}

TEST_P(load, what_other_programs_compute_and_save_is_ignored) {
    write(0, [&](auto& writer) {
        std::string const attention = prefix() + "layers.1.self_attn.";
        add_zeros(writer, attention + "rotary_emb.inv_freq", {3});
        add_zeros(writer, attention + "rotary_emb.cos_cached", {1, 1, 40, 6});
        add_zeros(writer, attention + "masked_bias", {});
        add_zeros(writer, prefix() + "layers.0.attn.bias", {1, 1, 40, 40});
        add_zeros(writer, prefix() + "layers.0.attention.bias", {1, 1, 40, 40});
        add_zeros(writer, "vision_tower.layers.5.weight", {2, 2});
    });
    EXPECT_EQ(message(), "");
}

TEST_P(load, a_tensor_that_would_be_left_out_is_an_error) {
    auto const refusal = [&](std::string const& name) {
        write(0, [&](auto& writer) { add_zeros(writer, name, {12}); });
        return message();
    };
    std::string const last = prefix() + "layers.2.self_attn.q_proj.weight";
    EXPECT_EQ(refusal(last), about(last) + "is of block 2, but config.json has 2 blocks");
    for (auto const* name : {"self_attn.q_norm.weight", "mlp.experts.0.up_proj.weight", "mlp.router.weight", "extra"}) {
        std::string const whole = prefix() + "layers.1." + name;
        EXPECT_EQ(refusal(whole), about(whole) + "is no part of the model that config.json describes");
    }
    if (prefix() == "model.") {
        EXPECT_EQ(refusal("model.norm.bias"), about("model.norm.bias") + "is there, but config.json has no such bias");
    }
}

TEST_P(load, the_head_of_the_checkpoint_is_followed_where_the_configuration_has_none) {
    auto json = GetParam();
    json["tie_word_embeddings"] = true;
    auto const tokens = test::some_tokens(12);
    matrix const embeddings = source_.tensors.at(prefix() + "embed_tokens.weight");
    for (bool const same : {false, true}) {
        source_.tensors["lm_head.weight"] = same ? embeddings : matrix(-2 * embeddings);
        write();
        std::ofstream(directory_ / "config.json") << json;
        auto const loaded = load_decoder(directory_);
        EXPECT_EQ(loaded.lm_head.has_value(), !same);
        ASSERT_EQ(loaded.warnings.size(), same ? 0U : 1U);
        if (!same) {
            EXPECT_NE(loaded.warnings.front().find("'lm_head.weight', which is used"), std::string::npos);
            decoder tied = loaded;
            tied.lm_head.reset();
            EXPECT_EQ(loaded.forward(tokens), matrix(-2 * tied.forward(tokens)));
        }
    }
    source_.tensors.erase("lm_head.weight");
    write(0, [&](auto& writer) { add_zeros(writer, "lm_head.bias", {19}); });
    std::ofstream(directory_ / "config.json") << json;
    EXPECT_EQ(message(), about("lm_head.bias") + "is there, but the head has no weights of its own");
}

TEST_P(load, biases_that_the_configuration_does_not_know_are_those_of_its_own_layout) {
    auto json = GetParam();
    json[json.at("model_type") == "opt" ? "enable_bias" : "mlp_bias"] = false;
    write();
    json["quantization_config"] = {{"quant_method", "detent"}};
    std::ofstream(directory_ / "config.json") << json;
    auto const tokens = test::some_tokens(12);
    EXPECT_EQ(load_decoder(directory_).forward(tokens), original_.forward(tokens));
}

TEST_P(load, weights_in_pytorchs_format_are_refused) {
    std::ofstream(directory_ / "config.json") << GetParam();
    std::ofstream(directory_ / "pytorch_model.bin") << "PK";
    EXPECT_TRUE(message().starts_with((directory_ / "pytorch_model.bin").string() + ": is in PyTorch's own format"))
        << message();
}

INSTANTIATE_TEST_SUITE_P(families, load, testing::Values(test::llama_json(), test::opt_json()),
                         [](auto const& family) { return family.param.at("model_type").template get<std::string>(); });

namespace {

/// Experts in tensors of their own, and in one of all with gate and up in turns.
class load_experts : public testing::TestWithParam<std::string> {
protected:
    /// The error about the checkpoint with one more tensor of these numbers.
    std::string message_with(std::string const& name, std::vector<index_t> const& shape) {
        auto const from = test::families_directory() / GetParam();
        io::checkpoint const original(from);
        io::safetensors_writer writer;
        for (auto const& tensor : original.names()) {
            writer.add(tensor, original.at(tensor).type, original.at(tensor).shape, original.at(tensor).bytes);
        }
        std::vector<std::uint8_t> const zeros(64 * 64 * 4);
        writer.add(name, io::dtype::f32, shape, zeros);
        writer.save(directory_ / "model.safetensors");
        std::filesystem::copy_file(from / "config.json", directory_ / "config.json",
                                   std::filesystem::copy_options::overwrite_existing);
        return failure_message([&] { load_decoder(directory_.path()); });
    }

    temporary_directory directory_;
};
INSTANTIATE_TEST_SUITE_P(, load_experts, testing::Values("qwen3-moe-bf16", "gpt-oss-bf16"),
                         [](auto const& test) { return test.param == "gpt-oss-bf16" ? "gpt_oss" : "qwen3_moe"; });

} // namespace

TEST_P(load_experts, one_that_the_configuration_does_not_have_is_an_error) {
    std::string const name = "model.layers.1.mlp.experts.4.up_proj.weight";
    EXPECT_EQ(message_with(name, {64, 64}), directory_.path().string() + ", tensor '" + name +
                                                "': is no part of the model that config.json describes");
    EXPECT_EQ(message_with("model.rotary_emb.inv_freq", {4096}), "");
}

TEST_P(load_experts, each_has_its_own_numbers) {
    auto const model = load_decoder(test::families_directory() / GetParam());
    auto const& mlps = model.blocks[0].mlps;
    ASSERT_EQ(mlps.size(), 4U);
    std::set<float> firsts;
    for (auto const& mlp : mlps) {
        for (auto const* layer : {&*mlp.gate, &mlp.up, &mlp.down}) {
            firsts.insert(std::get<matrix>(layer->weight)(3, 5));
        }
    }
    EXPECT_EQ(firsts.size(), 12U);
    EXPECT_EQ(mlps[2].up.name, "model.layers.0.mlp.experts.2.up_proj");
    EXPECT_EQ(mlps[2].up.stored.has_value(), GetParam() == "gpt-oss-bf16");
}

TEST(decoder_file, reads_the_blocks_that_load_decoder_reads) {
    for (std::string const name : {"tiny-llama", "tiny-opt"}) {
        auto const model = load_decoder(test::model_directory(name));
        decoder_file const file(test::model_directory(name));
        EXPECT_TRUE(file.ends().blocks.empty());
        EXPECT_TRUE(file.ends().embeddings.weight == model.embeddings.weight);
        ASSERT_EQ(file.size(), std::ssize(model.blocks));
        for (index_t i = file.size(); i-- > 0;) {
            block const b = file.read_block(i);
            for (layer_place const place : b.places()) {
                auto const& expected = model.blocks[static_cast<std::size_t>(i)].linear(place);
                EXPECT_EQ(b.linear(place).name, expected.name);
                EXPECT_TRUE(b.linear(place).weight == expected.weight);
                EXPECT_TRUE(b.linear(place).bias == expected.bias);
            }
        }
        file.expect_all_read();
    }
}

TEST(decoder_file, refuses_files_that_change_while_it_is_read) {
    for (std::string const changed : {"config.json", "model.safetensors"}) {
        temporary_directory const directory;
        for (auto const* name : {"config.json", "model.safetensors"}) {
            std::filesystem::copy_file(test::model_directory("tiny-llama") / name, directory / name);
        }
        decoder_file const file(directory.path());
        file.read_block(0);
        auto const path = directory / changed;
        std::filesystem::resize_file(path, std::filesystem::file_size(path) - 1);
        EXPECT_TRUE(contains(failure_message([&] { file.read_block(1); }),
                             path.string() + ": has changed since it was opened: it had "));
        std::filesystem::remove(path);
        EXPECT_TRUE(contains(failure_message([&] { file.expect_unchanged(); }), path.string()));
    }
}

} // namespace detent

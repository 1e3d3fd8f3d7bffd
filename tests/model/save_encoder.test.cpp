// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <optional>
#include <ostream>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "detent/grid/fp_grid.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/model/load_encoder.hpp"
#include "detent/model/save_encoder.hpp"
#include "detent/quantizer/named_grid.hpp"
#include "detent/scale/absmax.hpp"
#include "detent/scale/minmax.hpp"
#include "detent/solver/rtn.hpp"
#include "io/failure_message.hpp"
#include "io/temporary_directory.hpp"
#include "model/family_fixtures.hpp"
#include "model/random_encoder.hpp"

namespace detent {
namespace {

/// Quantizes all layers of blocks to nearest, in groups of `width` inputs or whole rows.
template <class G, class Range> void quantize(std::vector<block>& blocks, index_t width = 0) {
    for (block& b : blocks) {
        for (auto const& group : b.groups()) {
            for (layer_place const place : group) {
                auto& weight = b.linear(place).weight;
                problem_of const p{G{}, per_tile{1, width}, Range{}};
                weight = pack(rtn{}.solve(std::get<matrix>(weight), {}, p, {}));
            }
        }
    }
}

/// What an encoder makes of the same input every time.
matrix states(text_encoder const& model) {
    std::vector<nn::token_id> const tokens{3, 1, 4, 1, 5, 9, 2, 6, 5};
    return model.forward(tokens);
}
matrix states(image_encoder const& model) {
    matrix const images = matrix::NullaryExpr(2, model.configuration.pixels(), [](index_t i, index_t j) {
        return static_cast<float>((i * 31 + j * j * 7 + j) % 23) / 11.0F - 1.0F;
    });
    matrix const hidden = model.forward(images);
    return model.classifier ? model.logits(hidden) : model.normalized(hidden);
}

/// The bytes of every tensor of a checkpoint.
std::map<std::string, std::vector<std::uint8_t>> tensors(std::filesystem::path const& directory) {
    io::checkpoint const checkpoint(directory);
    std::map<std::string, std::vector<std::uint8_t>> all;
    for (auto const& name : checkpoint.names()) {
        auto const bytes = checkpoint.at(name).bytes;
        all[name] = {bytes.begin(), bytes.end()};
    }
    return all;
}

/// Where a checkpoint is, and how it is loaded.
struct saved_encoder {
    std::string name;
    bool text = true;
    std::filesystem::path fixture = {}; // or
    std::function<test::encoder_checkpoint()> random = {};

    friend std::ostream& operator<<(std::ostream& out, saved_encoder const& e) { return out << e.name; }
};

std::vector<saved_encoder> all_encoders() {
    std::vector<saved_encoder> all;
    for (auto const* kind : {"text", "image"}) {
        for (auto const& f : test::family_fixtures(kind)) {
            all.push_back({f.name(), std::string(kind) == "text", f.directory});
        }
    }
    for (auto const& c : test::text_encoder_cases()) {
        all.push_back({"random_" + c.name, true, {}, c.make});
    }
    for (auto const& c : test::image_encoder_cases()) {
        all.push_back({"random_" + c.name, false, {}, c.make});
    }
    return all;
}

class save_encoder_of : public testing::TestWithParam<saved_encoder> {
protected:
    save_encoder_of() {
        if (GetParam().random) {
            std::filesystem::create_directories(source());
            GetParam().random().write(source());
        }
    }

    std::filesystem::path source() const { return GetParam().random ? directory_ / "source" : GetParam().fixture; }
    std::filesystem::path target() const { return directory_ / "saved"; }

    /// Changes the model by `change(blocks)`, saves it, and expects it to be loaded again as it was.
    template <class Change> save_plan round_trip(Change const& change, std::optional<io::packed_layout> wanted = {}) {
        auto const through = [&](auto const& load) {
            auto model = load(source());
            change(model.blocks);
            auto const plan = save_encoder(model, source(), target(), "how it was made", wanted);
            auto const again = load(target());
            EXPECT_EQ(states(again), states(model));
            return plan;
        };
        return GetParam().text ? through(load_text_encoder) : through(load_image_encoder);
    }

    temporary_directory const directory_;
};
INSTANTIATE_TEST_SUITE_P(, save_encoder_of, testing::ValuesIn(all_encoders()), [](auto const& test) {
    std::string name = test.param.name;
    std::ranges::replace(name, '-', '_');
    return name;
});

TEST_P(save_encoder_of, what_has_not_changed_is_copied) {
    round_trip([](std::vector<block>&) {});
    EXPECT_EQ(tensors(target()), tensors(source()));
    EXPECT_EQ(io::read_json(target() / "config.json"), io::read_json(source() / "config.json"));
}

TEST_P(save_encoder_of, quantized_blocks_are_loaded_again_to_the_bit) {
    auto const plan =
        round_trip([](auto& blocks) { quantize<int_grid<4>, minmax_range>(blocks, 4); }, io::packed_layout::detent);
    EXPECT_EQ(plan.layout, io::packed_layout::detent);
    auto configuration = io::read_json(target() / "config.json");
    EXPECT_EQ(configuration.at("quantization_config"),
              (nlohmann::json{{"format", "detent"}, {"description", "how it was made"}}));
    configuration.erase("quantization_config");
    EXPECT_EQ(configuration, io::read_json(source() / "config.json"));
    // Whatever is no weight of a block is as it was.
    auto const saved = tensors(target());
    std::size_t kept = 0;
    for (auto const& [name, bytes] : tensors(source())) {
        auto const found = saved.find(name);
        kept += found != saved.end();
        EXPECT_TRUE(found == saved.end() || found->second == bytes) << name;
    }
    EXPECT_GT(kept, 10U);
}

TEST_P(save_encoder_of, gptq_holds_what_it_can) {
    auto const plan = round_trip([](auto& blocks) { quantize<int_grid<4>, minmax_range>(blocks, 32); });
    auto const& name = GetParam().name;
    bool const shares_tensors = name.starts_with("random_torch") || name == "random_dinov2_with_registers";
    bool const fits = !GetParam().random; // else rows are too short
    EXPECT_EQ(plan.layout, fits ? io::packed_layout::gptq : io::packed_layout::detent) << plan.obstacle;
    EXPECT_EQ(plan.obstacle.empty(), fits);
    EXPECT_EQ(plan.obstacle.find("is a part of") != std::string::npos, shares_tensors) << plan.obstacle;
    auto const settings = io::read_json(target() / "config.json").at("quantization_config");
    EXPECT_EQ(settings.value("quant_method", "detent"), fits ? "gptq" : "detent");
}

TEST_P(save_encoder_of, rounded_inputs_are_loaded_again_to_the_bit) {
    auto const plan = round_trip([](auto& blocks) {
        quantize<e2m1, absmax_range>(blocks);
        for (block& b : blocks) {
            b.output.input = b.head_input =
                activation_quantizer(find_grid(grid_name::parse("int8")), activation_rounding{});
            b.heads.probability_bits = 8;
        }
    });
    EXPECT_EQ(plan.layout, io::packed_layout::detent);
}

TEST(save_encoder, layers_outside_the_blocks_may_change) {
    temporary_directory const directory;
    auto const checkpoint = test::vit_checkpoint();
    auto const source = directory / "source", target = directory / "saved";
    std::filesystem::create_directories(source);
    checkpoint.write(source);
    std::ofstream(source / "preprocessor_config.json") << R"({"image_mean": [0.5, 0.25], "image_std": [0.5, 2]})";
    auto model = load_image_encoder(source);
    std::get<matrix>(model.classifier->weight) *= 2.0F;
    std::get<matrix>(model.patch_embedding.weight) *= 0.5F;
    model.final_norm.bias.setZero();
    save_encoder(model, source, target, "");
    auto const again = load_image_encoder(target);
    EXPECT_EQ(states(again), states(model));
    EXPECT_EQ(again.configuration.pixel_std, model.configuration.pixel_std);
    model.patch_embedding.weight = pack(rtn{}.solve(std::get<matrix>(model.patch_embedding.weight), {},
                                                    problem_of{int_grid<4>{}, per_channel{}, minmax_range{}}, {}));
    EXPECT_EQ(failure_message([&] { save_encoder(model, source, target, ""); }),
              "layer 'vit.embeddings.patch_embeddings.projection': is quantized, which cannot be saved");
}

TEST(save_encoder, needs_the_float_checkpoint_and_another_directory) {
    temporary_directory const directory;
    auto const source = directory / "source", target = directory / "saved";
    std::filesystem::create_directories(source);
    test::bert_checkpoint().write(source);
    auto model = load_text_encoder(source);
    EXPECT_EQ(failure_message([&] { save_encoder(model, source, source, ""); }),
              source.string() + ": is where the model came from; saving there would lose its weights");
    quantize<int_grid<4>, minmax_range>(model.blocks);
    save_encoder(model, source, target, "");
    save_encoder(load_text_encoder(target), target, directory / "again", "");
    EXPECT_EQ(io::checkpoint(directory / "again").names(), io::checkpoint(target).names());
    EXPECT_TRUE(contains(
        failure_message([&] { save_encoder(model, source, directory / "third", "", io::packed_layout::gptq); }),
        "GPTQ's layout cannot hold it"));
}

} // namespace
} // namespace detent

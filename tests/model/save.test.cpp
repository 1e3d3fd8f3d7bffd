// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "detent/model/save.hpp"

#include <algorithm>
#include <filesystem>
#include <optional>

#include <gtest/gtest.h>

#include "calibrate/tiny_models.hpp"
#include "detent/calibrate/quantize_decoder.hpp"
#include "detent/grid/fp_grid.hpp"
#include "detent/matrix/dequantize.hpp"
#include "detent/scale/absmax.hpp"
#include "detent/solver/rtn.hpp"
#include "io/failure_message.hpp"
#include "io/temporary_directory.hpp"
#include "matrix/random_weak.hpp"

namespace detent {
namespace {

using test::layer_quantizer;

/// Rounds all layers to nearest; the weights of the columns `weak` stay as they are.
template <Grid G, class Range>
void round_layers(decoder& model, G const& grid, Range const& range, index_t group,
                  std::vector<std::int32_t> const& weak, float_format format) {
    problem_of const p{grid, per_tile{1, group}, range};
    for (block& b : model.blocks) {
        for (auto const& roles : b.groups()) {
            for (linear_role const role : roles) {
                matrix const w = std::get<matrix>(b.linear(role).weight);
                solution s = rtn{}.solve(w, {}, p, test::two_threads());
                test::weaken(s, grid, weak, format);
                for (index_t k = 0; k < s.weak.count(); ++k) {
                    for (index_t row = 0; row < w.rows(); ++row) {
                        s.weak.set(k, row, w(row, weak[static_cast<std::size_t>(k)]));
                    }
                }
                b.linear(role).weight = pack(grid, s);
            }
        }
    }
}

class save : public testing::TestWithParam<std::string> {
protected:
    /// Quantizes with a little text, saves, loads.
    decoder round_trip(quantize_layer q, io::packed_layout layout) {
        auto const text = test::calibration_text();
        quantize_decoder(model_, {.tokens = text, .window = 64, .windows = 4}, q, test::two_threads());
        return saved_and_loaded(layout);
    }

    decoder saved_and_loaded(io::packed_layout layout, std::optional<io::packed_layout> wanted = {}) {
        auto const plan = save_decoder(model_, source_, directory_ / "out", "a test", wanted);
        EXPECT_EQ(plan.layout, layout) << plan.obstacle;
        return load_decoder(directory_ / "out");
    }

    /// Every weight and so every code stands for the same number.
    void expect_same(decoder const& loaded) {
        auto const before = packed_layers(model_);
        auto const after = packed_layers(loaded);
        ASSERT_EQ(before.size(), after.size());
        for (auto const& [name, packed] : before) {
            EXPECT_TRUE(dequantize(*packed) == dequantize(*after.at(name))) << name;
            EXPECT_EQ(packed->tile, after.at(name)->tile) << name;
        }
        auto const text = test::evaluation_text();
        std::span const tokens = std::span(text).first(96);
        matrix const logits = model_.forward(tokens, 2, test::two_threads());
        float const difference = (logits - loaded.forward(tokens, 2, test::two_threads())).cwiseAbs().maxCoeff();
        EXPECT_LE(difference, 1e-4F * logits.cwiseAbs().maxCoeff());
    }

    temporary_directory directory_;
    std::filesystem::path const source_ = test::model_directory(GetParam());
    decoder model_ = load_decoder(source_);
};
INSTANTIATE_TEST_SUITE_P(, save, testing::Values("tiny-llama", "tiny-opt"),
                         [](auto const& test) { return test.param == "tiny-llama" ? "llama" : "opt"; });

TEST_P(save, groups_of_integers_go_to_gptq_layout_and_back) {
    auto const loaded = round_trip(layer_quantizer<int_grid<4>>{.group = 128}, io::packed_layout::gptq_v2);
    expect_same(loaded);
    for (auto const& [name, packed] : packed_layers(model_)) {
        EXPECT_TRUE(*packed == *packed_layers(loaded).at(name)) << name; // the same codes to the bit
    }
    auto const settings = io::read_json(directory_ / "out" / "config.json").at("quantization_config");
    EXPECT_EQ(settings.at("quant_method"), "gptq");
    EXPECT_EQ(settings.at("checkpoint_format"), "gptq_v2");
    EXPECT_EQ(settings.at("bits"), 4);
    EXPECT_EQ(settings.at("group_size"), 128);
    EXPECT_EQ(settings.at("sym"), false);
    EXPECT_EQ(settings.at("desc_act"), false);
}

TEST_P(save, rows_of_3_bits_go_to_gptq_layout_and_back) {
    expect_same(round_trip(layer_quantizer<int_grid<3>>{}, io::packed_layout::gptq_v2));
    EXPECT_EQ(io::read_json(directory_ / "out" / "config.json").at("quantization_config").at("group_size"), -1);
}

TEST_P(save, activation_order_goes_to_gptq_layout_and_back) {
    layer_quantizer<int_grid<4>> q{.group = 64};
    q.options.activation_order = true;
    expect_same(round_trip(q, io::packed_layout::gptq_v2));
    EXPECT_EQ(io::read_json(directory_ / "out" / "config.json").at("quantization_config").at("desc_act"), true);
}

TEST_P(save, symmetric_integers_go_to_gptq_layout_and_back) {
    expect_same(round_trip(layer_quantizer<int_grid<4, zero::none>, absmax_range>{}, io::packed_layout::gptq_v2));
}

TEST_P(save, other_grids_go_to_the_own_layout_and_back) {
    auto const loaded = round_trip(layer_quantizer<e2m1, absmax_range>{.group = 24}, io::packed_layout::detent);
    expect_same(loaded);
    for (auto const& [name, packed] : packed_layers(model_)) {
        EXPECT_TRUE(*packed == *packed_layers(loaded).at(name)) << name;
    }
}

TEST_P(save, weak_columns_go_to_the_own_layout_and_back) {
    round_layers(model_, int_grid<4>{}, minmax_range{}, 32, {1, 2, 60}, float_format::f16);
    auto const loaded = saved_and_loaded(io::packed_layout::detent);
    expect_same(loaded);
    for (auto const& [name, packed] : packed_layers(model_)) {
        EXPECT_EQ(packed->weak.count(), 3) << name;
        EXPECT_TRUE(*packed == *packed_layers(loaded).at(name)) << name;
    }
    auto const plan = plan_save(model_);
    EXPECT_TRUE(contains(plan.obstacle, "GPTQ's layout cannot hold it, it has no weak columns")) << plan.obstacle;
}

TEST_P(save, weak_columns_go_to_owqs_layout_and_back) {
    round_layers(model_, int_grid<3>{}, minmax_range{}, 0, {1, 2, 60}, float_format::bf16);
    auto const loaded = saved_and_loaded(io::packed_layout::owq, io::packed_layout::owq);
    expect_same(loaded);
    for (auto const& [name, packed] : packed_layers(model_)) {
        EXPECT_TRUE(*packed == *packed_layers(loaded).at(name)) << name;
    }
    auto const settings = io::read_json(directory_ / "out" / "config.json").at("quantization_config");
    EXPECT_EQ(settings.at("quant_method"), "owq");
    EXPECT_EQ(settings.at("description"), "a test");
    EXPECT_EQ(settings.at("bits"), 3);
    EXPECT_EQ(settings.at("group_size"), -1);
    EXPECT_EQ(settings.at("sym"), false);
    EXPECT_FALSE(settings.contains("checkpoint_format"));
    EXPECT_EQ(read_packed_layout(directory_ / "out" / "config.json"), io::packed_layout::owq);
}

TEST_P(save, whole_rows_go_to_owqs_layout_without_weak_columns_too) {
    round_layers(model_, int_grid<4, zero::none>{}, absmax_range{}, 0, {}, float_format::f16);
    expect_same(saved_and_loaded(io::packed_layout::owq, io::packed_layout::owq));
}

TEST_P(save, any_layout_that_can_hold_the_model_may_be_asked_for) {
    round_layers(model_, int_grid<4>{}, minmax_range{}, 0, {}, float_format::f16);
    expect_same(saved_and_loaded(io::packed_layout::detent, io::packed_layout::detent));
    EXPECT_EQ(plan_save(model_, io::packed_layout::gptq_v2).layout, io::packed_layout::gptq_v2);
    EXPECT_EQ(plan_save(model_, io::packed_layout::detent).obstacle, "");
}

TEST_P(save, a_layout_that_cannot_hold_the_model_is_an_error) {
    round_layers(model_, int_grid<4>{}, minmax_range{}, 32, {1, 2, 60}, float_format::f16);
    auto const refused = [&](io::packed_layout wanted) {
        std::string const planned = failure_message([&] { plan_save(model_, wanted); });
        EXPECT_EQ(failure_message([&] { save_decoder(model_, source_, directory_ / "out", "", wanted); }), planned);
        EXPECT_EQ(directory_.entries(), 0) << "nothing is written";
        return planned;
    };
    std::string const layer = "layer '" + packed_layers(model_).begin()->first + "': ";
    EXPECT_EQ(refused(io::packed_layout::owq), layer + "OWQ's layout cannot hold it, its scales are of whole rows");
    EXPECT_EQ(refused(io::packed_layout::gptq_v2), layer + "GPTQ's layout cannot hold it, it has no weak columns");
    EXPECT_EQ(refused(io::packed_layout::gptq_v1), "GPTQ's v1 layout: is read, not written");
}

TEST_P(save, copies_all_other_tensors_byte_for_byte) {
    round_trip(layer_quantizer<int_grid<4>>{}, io::packed_layout::gptq_v2);
    io::checkpoint const before(source_);
    io::checkpoint const after(directory_ / "out");
    int copied = 0;
    for (auto const& name : before.names()) {
        if (after.contains(name)) {
            EXPECT_TRUE(std::ranges::equal(before.at(name).bytes, after.at(name).bytes)) << name;
            EXPECT_EQ(before.at(name).type, after.at(name).type);
            ++copied;
        } else {
            EXPECT_TRUE(packed_layers(model_).contains(name.substr(0, name.rfind(".weight")))) << name;
        }
    }
    EXPECT_EQ(copied, std::ssize(before.names()) - std::ssize(packed_layers(model_)));
}

TEST_P(save, leaves_nothing_where_it_cannot_write) {
    io::write_text(directory_ / "file", "in the way");
    try {
        save_decoder(model_, source_, directory_ / "file" / "out", "");
        FAIL();
    } catch (error const& e) {
        EXPECT_NE(std::string(e.what()).find("file"), std::string::npos) << e.what();
    }
    EXPECT_EQ(directory_.entries(), 1);
}

} // namespace
} // namespace detent

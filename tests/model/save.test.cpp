// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "calibrate/tiny_models.hpp"
#include "detent/calibrate/quantize_decoder.hpp"
#include "detent/grid/fp_grid.hpp"
#include "detent/io/json.hpp"
#include "detent/io/text_file.hpp"
#include "detent/matrix/dequantize.hpp"
#include "detent/model/block_file.hpp"
#include "detent/model/fold.hpp"
#include "detent/model/save.hpp"
#include "detent/quantizer/named_grid.hpp"
#include "detent/scale/absmax.hpp"
#include "detent/scale/mse.hpp"
#include "detent/solver/rtn.hpp"
#include "detent/transform/channel_scale.hpp"
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
        for (auto const& places : b.groups()) {
            for (layer_place const place : places) {
                matrix const w = std::get<matrix>(b.linear(place).weight);
                solution s = rtn{}.solve(w, {}, p, test::two_threads());
                test::weaken(s, grid, weak, format);
                for (index_t k = 0; k < s.weak.count(); ++k) {
                    for (index_t row = 0; row < w.rows(); ++row) {
                        s.weak.set(k, row, w(row, weak[static_cast<std::size_t>(k)]));
                    }
                }
                b.linear(place).weight = pack(s);
            }
        }
    }
}

class save : public testing::TestWithParam<std::string> {
protected:
    /// Quantizes with a little text, saves, loads.
    decoder round_trip(quantize_layer q, io::packed_layout layout) {
        auto const text = test::calibration_text();
        quantize_decoder(model_, q, {.tokens = text, .window = 64, .windows = 4}, test::two_threads());
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

    /// The same logits to the bit.
    void expect_same_bits(decoder const& loaded) {
        auto const text = test::evaluation_text();
        std::span const tokens = std::span(text).first(64);
        EXPECT_TRUE(model_.forward(tokens, 2, test::two_threads()) == loaded.forward(tokens, 2, test::two_threads()));
    }

    nlohmann::json saved_configuration() const { return io::read_json(directory_ / "out" / "config.json"); }

    /// Rounds all layers to integers of 4 bits.
    void round_blocks() { round_layers(model_, int_grid<4>{}, minmax_range{}, 64, {}, float_format::f16); }

    /// Rounds a layer to a grid that only detent's layout holds.
    static void round_layer(linear_layer& layer) {
        problem_of const p{e2m1{}, per_tile{1, 32}, absmax_range{}};
        layer.weight = pack(rtn{}.solve(std::get<matrix>(layer.weight), {}, p, test::two_threads()));
    }

    /// Gives a model with tied embeddings an output head of its own.
    void untie() {
        if (!model_.lm_head) {
            model_.lm_head = model_.embeddings;
            model_.lm_head->name = "lm_head";
        }
    }

    temporary_directory directory_;
    std::filesystem::path const source_ = test::model_directory(GetParam());
    decoder model_ = load_decoder(source_);
};
INSTANTIATE_TEST_SUITE_P(, save, testing::Values("tiny-llama", "tiny-opt"),
                         [](auto const& test) { return test.param == "tiny-llama" ? "llama" : "opt"; });

TEST_P(save, groups_of_integers_go_to_gptq_layout_and_back) {
    auto const loaded = round_trip(layer_quantizer<int_grid<4>>{.group = 128}, io::packed_layout::gptq);
    expect_same(loaded);
    for (auto const& [name, packed] : packed_layers(model_)) {
        EXPECT_TRUE(*packed == *packed_layers(loaded).at(name)) << name; // the same codes to the bit
    }
    auto const settings = io::read_json(directory_ / "out" / "config.json").at("quantization_config");
    EXPECT_EQ(settings.at("quant_method"), "gptq");
    EXPECT_EQ(settings.at("checkpoint_format"), "gptq") << "no zero point is 0";
    EXPECT_EQ(settings.at("bits"), 4);
    EXPECT_EQ(settings.at("group_size"), 128);
    EXPECT_EQ(settings.at("sym"), false);
    EXPECT_EQ(settings.at("desc_act"), false);
}

TEST_P(save, rows_of_3_bits_go_to_gptq_layout_and_back) {
    expect_same(round_trip(layer_quantizer<int_grid<3>>{}, io::packed_layout::gptq));
    EXPECT_EQ(io::read_json(directory_ / "out" / "config.json").at("quantization_config").at("group_size"), -1);
}

TEST_P(save, activation_order_goes_to_gptq_layout_and_back) {
    layer_quantizer<int_grid<4>> q{.group = 64};
    q.options.activation_order = true;
    expect_same(round_trip(q, io::packed_layout::gptq));
    EXPECT_EQ(io::read_json(directory_ / "out" / "config.json").at("quantization_config").at("desc_act"), true);
}

TEST_P(save, symmetric_integers_go_to_gptq_layout_and_back) {
    expect_same(round_trip(layer_quantizer<int_grid<4, zero::none>, absmax_range>{}, io::packed_layout::gptq));
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
}

TEST_P(save, whole_rows_go_to_owqs_layout_without_weak_columns_too) {
    round_layers(model_, int_grid<4, zero::none>{}, absmax_range{}, 0, {}, float_format::f16);
    expect_same(saved_and_loaded(io::packed_layout::owq, io::packed_layout::owq));
}

TEST_P(save, any_layout_that_can_hold_the_model_may_be_asked_for) {
    round_layers(model_, int_grid<4>{}, minmax_range{}, 0, {}, float_format::f16);
    expect_same(saved_and_loaded(io::packed_layout::detent, io::packed_layout::detent));
    EXPECT_EQ(plan_save(model_, io::packed_layout::gptq).layout, io::packed_layout::gptq);
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
    EXPECT_EQ(refused(io::packed_layout::gptq), layer + "GPTQ's layout cannot hold it, it has no weak columns");
    EXPECT_EQ(refused(io::packed_layout::compressed_tensors),
              layer + "compressed-tensors' layout cannot hold it, it has no weak columns");
    EXPECT_EQ(refused(io::packed_layout::modelopt), "ModelOpt's layout: is read, not written");
}

TEST_P(save, copies_all_other_tensors_byte_for_byte) {
    round_trip(layer_quantizer<int_grid<4>>{}, io::packed_layout::gptq);
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

TEST_P(save, keeps_what_is_folded_into_norms) {
    plant_outliers(model_);
    round_blocks();
    auto const loaded = saved_and_loaded(io::packed_layout::gptq);
    expect_same_bits(loaded);
    auto const weight = [](block const& b) { return b.mlp_norms.input->weight; };
    EXPECT_FALSE(weight(loaded.blocks[1]) == weight(load_decoder(source_).blocks[1]));
    for (std::size_t i = 0; i < model_.blocks.size(); ++i) {
        block const &after = loaded.blocks[i], &before = model_.blocks[i];
        EXPECT_TRUE(after.attention_norms.input->weight == before.attention_norms.input->weight) << i;
        EXPECT_TRUE(after.mlp_norms.input->bias == before.mlp_norms.input->bias) << i;
    }
    // Sixteen times a number of 16 bits is another one.
    io::checkpoint const file(directory_ / "out");
    EXPECT_EQ(file.at(model_.blocks[0].attention_norms.input->name + ".weight").type, io::dtype::f16);
}

TEST_P(save, writes_a_folded_float_model) {
    for (block& b : model_.blocks) {
        for (site const at : all_sites) {
            float_vector scales = float_vector::Constant(channels_of(b, at), 1.7F);
            scales.head(b.heads.head_dim).setConstant(0.3F); // whole heads
            fold(b, at, at == site::context ? shared_by_heads(scales, b.heads) : scales);
        }
    }
    auto const loaded = saved_and_loaded(io::packed_layout::gptq);
    expect_same_bits(loaded);
    EXPECT_EQ(saved_configuration(), io::read_json(source_ / "config.json"));
    // No tensor comes or goes, and those that are the same are so to the byte.
    io::checkpoint const before(source_);
    io::checkpoint const after(directory_ / "out");
    EXPECT_EQ(after.names(), before.names());
    int changed = 0;
    for (auto const& name : before.names()) {
        bool const in_block = name.find(".layers.") != std::string::npos;
        bool const same = std::ranges::equal(before.at(name).bytes, after.at(name).bytes);
        EXPECT_TRUE(in_block || same) << name;
        changed += same ? 0 : 1;
        EXPECT_EQ(after.at(name).type, same ? io::dtype::f16 : io::dtype::f32) << name;
        EXPECT_EQ(after.at(name).shape, before.at(name).shape) << name;
    }
    EXPECT_GT(changed, 0);
    auto const originals = load_decoder(source_);
    EXPECT_FALSE(loaded.blocks[0].value.weight == originals.blocks[0].value.weight);
    if (GetParam() == "tiny-opt") {
        EXPECT_FALSE(loaded.blocks[0].value.bias == originals.blocks[0].value.bias);
        EXPECT_FALSE(loaded.blocks[0].mlps[0].up.bias == originals.blocks[0].mlps[0].up.bias);
        EXPECT_FALSE(loaded.blocks[0].mlp_norms.input->bias == originals.blocks[0].mlp_norms.input->bias);
    }
}

TEST_P(save, a_tensor_that_the_source_does_not_have_is_an_error) {
    auto& layer = model_.blocks[2].query;
    layer.name += "_of_another_model";
    std::string const message = failure_message([&] { save_decoder(model_, source_, directory_ / "out", ""); });
    EXPECT_TRUE(contains(message, "'" + layer.name)) << message;
    EXPECT_TRUE(contains(message, "is missing")) << message;
    EXPECT_EQ(directory_.entries(), 0);
}

TEST_P(save, a_tensor_of_another_shape_is_an_error) {
    model_.final_norm->weight.conservativeResize(100);
    EXPECT_EQ(failure_message([&] { save_decoder(model_, source_, directory_ / "out", ""); }),
              "tensor '" + model_.final_norm->name + ".weight': has another shape in the model than in its source");
    EXPECT_EQ(directory_.entries(), 0);
}

/// The layouts that hold groups of integers of 4 bits in all layers.
constexpr io::packed_layout layouts_of_groups[] = {io::packed_layout::gptq, io::packed_layout::awq,
                                                   io::packed_layout::compressed_tensors, io::packed_layout::detent};

TEST_P(save, a_quantized_source_is_converted) {
    round_blocks();
    auto source = source_;
    for (auto const layout : layouts_of_groups) { // each from the one before it
        auto const to = directory_ / ("in-" + std::string(io::layout_of(layout).name));
        decoder const before = source == source_ ? model_ : load_decoder(source);
        EXPECT_EQ(save_decoder(before, source, to, "", layout).layout, layout);
        auto const converted = load_decoder(to);
        expect_same(converted);
        for (auto const& [name, packed] : packed_layers(model_)) {
            auto const& mine = *packed_layers(converted).at(name);
            EXPECT_EQ(mine.codes, packed->codes) << name;
            EXPECT_EQ(mine.scales.scales, packed->scales.scales) << name;
        }
        // Nothing of the layout before is left.
        save_decoder(model_, source_, directory_ / "directly", "", layout);
        EXPECT_EQ(io::checkpoint(to).names(), io::checkpoint(directory_ / "directly").names());
        source = to;
    }
}

TEST_P(save, dequantized_weights_of_a_quantized_source_are_floats) {
    round_blocks();
    save_decoder(model_, source_, directory_ / "gptq", "", io::packed_layout::gptq);
    decoder floats = load_decoder(directory_ / "gptq");
    for (block& b : floats.blocks) {
        for (auto const& places : b.groups()) {
            for (layer_place const place : places) {
                auto& weight = b.linear(place).weight;
                weight = dequantize(std::get<packed_matrix>(weight));
            }
        }
    }
    save_decoder(floats, directory_ / "gptq", directory_ / "floats", "");
    EXPECT_EQ(io::checkpoint(directory_ / "floats").names(), io::checkpoint(source_).names());
    EXPECT_FALSE(io::read_json(directory_ / "floats" / "config.json").contains("quantization_config"));
    EXPECT_EQ(load_decoder(directory_ / "floats").blocks[1].query.weight, floats.blocks[1].query.weight);
}

TEST_P(save, large_models_are_saved_in_shards) {
    round_blocks();
    save_decoder(model_, source_, directory_ / "out", "", io::packed_layout::compressed_tensors, 500'000);
    io::checkpoint const shards(directory_ / "out");
    EXPECT_GT(shards.files().size(), 2U);
    EXPECT_FALSE(std::filesystem::exists(directory_ / "out" / "model.safetensors"));
    for (auto const& file : shards.files()) {
        EXPECT_EQ(file.metadata().at("format"), "pt");
    }
    expect_same(load_decoder(directory_ / "out"));
    save_decoder(model_, source_, directory_ / "out", ""); // one file again, in the same place
    EXPECT_TRUE(io::checkpoint(directory_ / "out").warnings().empty());
    expect_same(load_decoder(directory_ / "out"));
}

TEST_P(save, what_lies_beside_the_weights_is_copied) {
    auto const source = directory_ / "source";
    std::filesystem::copy(source_, source);
    for (std::string const name : {"tokenizer.json", "tokenizer_config.json", "generation_config.json", "merges.txt",
                                   "chat_template.jinja", "LICENSE", "NOTICE.txt", "README.md", "quantize_config.json",
                                   "pytorch_model.bin", "notes.txt", "vocab.json"}) {
        io::write_text(source / name, name == "quantize_config.json" ? "{}" : name);
    }
    save_decoder(model_, source, directory_ / "out", "");
    auto const there = [&](std::string const& name) { return std::filesystem::exists(directory_ / "out" / name); };
    for (std::string const name : {"tokenizer.json", "tokenizer_config.json", "generation_config.json", "merges.txt",
                                   "chat_template.jinja", "LICENSE", "NOTICE.txt", "vocab.json"}) {
        ASSERT_TRUE(there(name)) << name;
        EXPECT_EQ(io::read_text(directory_ / "out" / name), name);
    }
    EXPECT_EQ(io::read_text(directory_ / "out" / "README.source.md"), "README.md");
    for (std::string const name : {"README.md", "quantize_config.json", "pytorch_model.bin", "notes.txt"}) {
        EXPECT_FALSE(there(name)) << name;
    }
}

TEST_P(save, compressed_tensors_names_all_that_stays_float) {
    round_blocks();
    model_.blocks[0].value.weight = std::get<matrix>(load_decoder(source_).blocks[0].value.weight);
    expect_same(saved_and_loaded(io::packed_layout::compressed_tensors, io::packed_layout::compressed_tensors));
    auto const settings = saved_configuration().at("quantization_config");
    auto const& ignored = settings.at("ignore");
    auto const is_ignored = [&](std::string const& name) {
        return std::count(ignored.begin(), ignored.end(), name) == 1;
    };
    EXPECT_TRUE(is_ignored("lm_head")) << settings.dump(1);
    EXPECT_TRUE(is_ignored(model_.blocks[0].value.name));
    EXPECT_FALSE(is_ignored(model_.blocks[1].value.name));
    EXPECT_EQ(settings.at("config_groups").at("group_0").at("targets"), nlohmann::json::array({"Linear"}));
}

TEST_P(save, packed_embeddings_and_output_head_come_back) {
    untie();
    round_blocks();
    round_layer(model_.embeddings);
    round_layer(*model_.lm_head);
    auto const loaded = saved_and_loaded(io::packed_layout::detent);
    EXPECT_EQ(packed_layers(loaded).size(), packed_layers(model_).size());
    EXPECT_EQ(loaded.embeddings.weight, model_.embeddings.weight);
    ASSERT_TRUE(loaded.lm_head.has_value());
    EXPECT_EQ(loaded.lm_head->weight, model_.lm_head->weight);
    expect_same_bits(loaded);
    EXPECT_EQ(saved_configuration().at("tie_word_embeddings"), false);
    io::checkpoint const file(directory_ / "out");
    EXPECT_FALSE(file.contains(model_.embeddings.name + ".weight"));
    EXPECT_FALSE(file.contains("lm_head.weight"));
}

TEST_P(save, packed_embeddings_may_stay_tied) {
    round_layer(model_.embeddings);
    auto const loaded = saved_and_loaded(io::packed_layout::detent);
    expect_same_bits(loaded);
    EXPECT_EQ(loaded.lm_head.has_value(), GetParam() == "tiny-llama");
    EXPECT_EQ(saved_configuration().at("tie_word_embeddings"), GetParam() == "tiny-opt");
}

TEST_P(save, a_float_output_head_may_be_new) {
    untie();
    std::get<matrix>(model_.lm_head->weight) *= 0.7F;
    auto const loaded = saved_and_loaded(io::packed_layout::gptq);
    expect_same_bits(loaded);
    EXPECT_EQ(saved_configuration().at("tie_word_embeddings"), false);
    EXPECT_FALSE(saved_configuration().contains("quantization_config"));
}

TEST_P(save, other_layouts_hold_no_embeddings_and_no_output_head) {
    untie();
    round_layers(model_, int_grid<4>{}, minmax_range{}, 0, {}, float_format::f16);
    problem_of const p{int_grid<4>{}, per_tile{1, 0}, minmax_range{}};
    for (linear_layer* const layer : {&model_.embeddings, &*model_.lm_head}) {
        matrix const w = std::get<matrix>(layer->weight);
        layer->weight = pack(rtn{}.solve(w, {}, p, test::two_threads()));
        for (auto const layout : {io::packed_layout::gptq, io::packed_layout::owq}) {
            EXPECT_EQ(failure_message([&] { plan_save(model_, layout); }),
                      "layer '" + layer->name + "': " + (layout == io::packed_layout::owq ? "OWQ's" : "GPTQ's") +
                          " layout cannot hold it, its embeddings and output head are not quantized");
        }
        EXPECT_EQ(plan_save(model_).layout, io::packed_layout::detent);
        layer->weight = w;
    }
    EXPECT_EQ(plan_save(model_).layout, io::packed_layout::gptq);
}

TEST_P(save, how_inputs_are_rounded_comes_back) {
    std::vector<std::int8_t> shifts(256);
    for (std::size_t i = 0; i < shifts.size(); ++i) {
        shifts[i] = static_cast<std::int8_t>(i % 16);
    }
    untie();
    for (bool const packed : {false, true}) {
        if (packed) {
            round_blocks();
        }
        model_.lm_head->input = activation_quantizer(find_grid(grid_name::parse("e4m3")));
        for (block& b : model_.blocks) {
            b.query.input = activation_quantizer(find_grid(grid_name::parse("int8sym")));
            activation_rounding const groups{.width = 100, .fixed = {{0.01F, 117.0F}, {0.02F, 0.0F}, {0.1F, 255.0F}}};
            b.key.input = activation_quantizer(find_grid(grid_name::parse("int8")), groups);
            b.value.input = activation_quantizer(find_grid(grid_name::parse("int8")), {0.01F, 0.0F}, shifts);
            auto& mlp = b.mlps.front();
            mlp.up.input = activation_quantizer(find_grid(grid_name::parse("fp4")), {0.1F, 0.0F}, shifts);
            mlp.down.input = activation_quantizer(find_grid(grid_name::parse("int6sym")), {0.1F, 0.0F});
            auto const e2m1s = find_grid(grid_name::parse("e2m1"));
            b.output.input = activation_quantizer(e2m1s, {.width = 32, .kind = scale_kind::e8m0});
            if (mlp.gate) {
                mlp.gate->input = activation_quantizer(e2m1s, {.width = 16, .kind = scale_kind::ue4m3, .unit = 0.01F});
            }
            b.head_input = activation_quantizer(find_grid(grid_name::parse("int4")));
            b.heads.probability_bits = 8;
        }
        auto const loaded = saved_and_loaded(io::packed_layout::detent);
        auto const before = tensors_of(model_).layers;
        auto const after = tensors_of(loaded).layers;
        ASSERT_EQ(before.size(), after.size());
        for (std::size_t i = 0; i < before.size(); ++i) {
            auto const &input = after[i].of->input, &expected = before[i].of->input;
            EXPECT_EQ(input, expected) << before[i].of->name;
            if (expected) {
                EXPECT_EQ(input->grid().name(), expected->grid().name());
            }
        }
        for (std::size_t i = 0; i < loaded.blocks.size(); ++i) {
            EXPECT_EQ(loaded.blocks[i].head_input, model_.blocks[i].head_input);
            EXPECT_EQ(loaded.blocks[i].heads.probability_bits, 8);
        }
        expect_same_bits(loaded);
        auto const settings = saved_configuration().at("quantization_config");
        EXPECT_EQ(settings.at("format"), "detent");
        EXPECT_FALSE(settings.contains("quant_method")) << "transformers would open it with random weights";
        EXPECT_EQ(settings.at("description"), "a test");
        EXPECT_EQ(packed_layers(loaded).empty(), !packed);
    }
}

TEST_P(save, other_layouts_hold_no_rounded_inputs) {
    round_layers(model_, int_grid<4>{}, minmax_range{}, 0, {}, float_format::f16);
    for (auto const layout : {io::packed_layout::gptq, io::packed_layout::owq}) {
        EXPECT_EQ(plan_save(model_, layout).layout, layout);
    }
    auto& layer = model_.blocks[3].mlps.front().down;
    layer.input = activation_quantizer(find_grid(grid_name::parse("int8sym")));
    for (auto const layout : {io::packed_layout::gptq, io::packed_layout::owq}) {
        EXPECT_EQ(failure_message([&] { plan_save(model_, layout); }),
                  "layer '" + layer.name + "': " + (layout == io::packed_layout::owq ? "OWQ's" : "GPTQ's") +
                      " layout cannot hold it, its inputs are not quantized");
    }
    auto const plan = plan_save(model_);
    EXPECT_EQ(plan.layout, io::packed_layout::detent);
    EXPECT_TRUE(contains(plan.obstacle, "its inputs are not quantized")) << plan.obstacle;
    layer.input.reset();
    model_.blocks[2].head_input = activation_quantizer(find_grid(grid_name::parse("int4")));
    EXPECT_EQ(failure_message([&] { plan_save(model_, io::packed_layout::gptq); }),
              "layer '" + attention_name(model_.blocks[2]) +
                  "': GPTQ's layout cannot hold it, its inputs are not quantized");
}

TEST_P(save, an_input_that_files_cannot_describe_is_an_error) {
    auto& layer = model_.blocks[1].output;
    auto const refusal = [&](activation_quantizer const& input, std::optional<io::packed_layout> wanted = {}) {
        layer.input = input;
        std::string const planned = failure_message([&] { plan_save(model_, wanted); });
        EXPECT_EQ(failure_message([&] { save_decoder(model_, source_, directory_ / "out", "", wanted); }), planned);
        EXPECT_EQ(directory_.entries(), 0) << "nothing is written";
        return planned;
    };
    std::string const about = "layer '" + layer.name + "': how its input is rounded cannot be saved: ";
    for (std::optional<io::packed_layout> const wanted :
         {std::optional<io::packed_layout>{}, std::optional(io::packed_layout::detent)}) {
        EXPECT_EQ(refusal(activation_quantizer(any_grid(e2m1{})), wanted), about + "the grid has no name");
    }
    EXPECT_EQ(refusal(activation_quantizer(any_grid(e2m1{}, "mine"))),
              about + "input_grid names the grid 'mine', which is unknown");
    EXPECT_EQ(refusal(activation_quantizer(any_grid(e2m1{}, "e3m0"))),
              about + "the name 'e3m0' is that of another grid");
    any_grid const int8 = find_grid(grid_name::parse("int8"));
    EXPECT_EQ(refusal(activation_quantizer(int8, {1.0F, 0.5F})),
              about + "input_zero holds what is no integer from 0 to 255");
    any_grid const int8sym = find_grid(grid_name::parse("int8sym"));
    EXPECT_EQ(refusal(activation_quantizer(int8sym, {1.0F, 0.0F}, {1, 2})), about + "2 shifts for 256 inputs");
    EXPECT_EQ(refusal(activation_quantizer(int8, {.width = 100, .fixed = {{1, 0}, {1, 0}}})),
              about + "2 scales for 256 inputs in groups of 100");
    EXPECT_EQ(refusal(activation_quantizer(int8sym, {.range = {int_grid<8, zero::none>{}, mse_range{}}})),
              about + "its scales are fitted by a range of its own");
}

/// The type that the numbers get where the source has `before` as type `T`, and the numbers that are read back.
template <class T>
io::dtype written_type(io::dtype type, std::vector<T> const& before, std::vector<float> const& numbers) {
    temporary_directory const directory;
    auto const bytes = io::bytes_of(before);
    io::tensor_view const original{type, {std::ssize(before)}, bytes};
    io::safetensors_writer writer;
    add_floats(writer, "x", {numbers, {std::ssize(numbers)}}, &original);
    writer.save(directory / "model.safetensors");
    io::checkpoint const file(directory / "model.safetensors");
    auto const& written = file.at("x");
    auto const read = io::to_floats(written, "x");
    for (std::size_t i = 0; i < numbers.size(); ++i) {
        EXPECT_EQ(read[i], numbers[i]);
        EXPECT_EQ(std::signbit(read[i]), std::signbit(numbers[i]));
    }
    if (io::to_floats(original, "x") == numbers && !std::signbit(numbers[0])) {
        EXPECT_TRUE(std::ranges::equal(written.bytes, bytes));
    }
    return written.type;
}

TEST(add_floats, keeps_the_type_of_the_source_where_it_can) {
    using io::dtype;
    std::vector<half> const halves{half(0.0F), half(0.1F)};
    EXPECT_EQ(written_type(dtype::f16, halves, {0.0F, static_cast<float>(half(0.1F))}), dtype::f16);
    EXPECT_EQ(written_type(dtype::f16, halves, {-0.0F, static_cast<float>(half(0.1F))}), dtype::f16);
    EXPECT_EQ(written_type(dtype::f16, halves, {65504.0F, 0x1p-24F}), dtype::f16);
    EXPECT_EQ(written_type(dtype::f16, halves, {1.0F, 0.1F}), dtype::f32);
    EXPECT_EQ(written_type(dtype::f16, halves, {1.0F, 65536.0F}), dtype::f32);
    EXPECT_EQ(written_type(dtype::f16, halves, {1.0F, 0x1p-25F}), dtype::f32);
    std::vector<bfloat16> const brains{bfloat16(1.0F), bfloat16(0.1F)};
    EXPECT_EQ(written_type(dtype::bf16, brains, {1.0F, 0x1.02p100F}), dtype::bf16);
    EXPECT_EQ(written_type(dtype::bf16, brains, {1.0F, 0x1.01p0F}), dtype::f32);
    std::vector<float> const floats{1.0F, 0.1F};
    EXPECT_EQ(written_type(dtype::f32, floats, {1.0F, 0.3F}), dtype::f32);
    std::vector<double> const doubles{1.0, 0.1}; // 0.1 is read as the nearest float and yet not changed
    EXPECT_EQ(written_type(dtype::f64, doubles, {1.0F, 0.1F}), dtype::f64);
    EXPECT_EQ(written_type(dtype::f64, doubles, {1.0F, 0.3F}), dtype::f64);
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

TEST_P(save, a_model_whose_blocks_come_one_after_the_other_gives_the_same_files) {
    round_blocks();
    for (auto const layout :
         {io::packed_layout::gptq, io::packed_layout::compressed_tensors, io::packed_layout::detent}) {
        auto const whole = directory_ / "whole", parts = directory_ / "parts";
        save_decoder(model_, source_, whole, "", layout, 300'000);
        decoder outlines = model_;
        for (block& b : outlines.blocks) {
            block small = outline_of(b);
            b = std::move(small);
            EXPECT_EQ(std::get<packed_matrix>(b.query.weight).codes.size(), 0);
        }
        blocks_in_memory blocks(model_);
        std::filesystem::create_directories(parts);
        write_decoder(outlines, blocks, source_, parts, "", layout, directory_.path(), 300'000);
        std::size_t files = 0;
        for (auto const& entry : std::filesystem::directory_iterator(whole)) {
            auto const name = entry.path().filename().string();
            EXPECT_TRUE(io::read_text(entry.path()) == io::read_text(parts / name)) << name;
            ++files;
        }
        EXPECT_GT(files, 3U);
        std::filesystem::remove_all(parts);
    }
}

TEST_P(save, a_directory_is_replaced_as_a_whole) {
    auto const out = directory_ / "out";
    save_decoder(model_, source_, out, "", {}, 300'000);
    io::write_text(out / "notes", "mine");
    io::write_text(out / "config.json", "{}");
    std::filesystem::create_directories(directory_ / "out.part" / "result"); // of a program that was stopped
    io::write_text(directory_ / "out.part" / "result" / "config.json", "unfinished");
    save_decoder(model_, source_, out, "");
    EXPECT_EQ(io::read_text(out / "notes"), "mine");
    EXPECT_FALSE(std::filesystem::exists(out / "model.safetensors.index.json"));
    EXPECT_FALSE(std::filesystem::exists(directory_ / "out.part"));
    EXPECT_TRUE(load_decoder(out).embeddings.weight == model_.embeddings.weight);
    EXPECT_EQ(directory_.entries(), 1);
}

} // namespace
} // namespace detent

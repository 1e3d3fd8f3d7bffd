// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include <gtest/gtest.h>

#include "calibrate/tiny_models.hpp"
#include "detent/calibrate/quantize_decoder.hpp"
#include "detent/matrix/dequantize.hpp"
#include "detent/model/block_flow.hpp"
#include "detent/model/fold.hpp"
#include "detent/model/sites.hpp"
#include "detent/transform/channel_scale.hpp"
#include "io/failure_message.hpp"
#include "model/random_decoder.hpp"

// Small decoders with random weights, of every form: many layers' worth of checks in no time.
namespace detent {
namespace {

/// Two threads would only wait for each other with so little to do.
template <Grid G> test::layer_quantizer<G> quantizer_of(bool to_nearest, gptq<> options = {}) {
    return {.to_nearest = to_nearest, .options = options, .executor = {}};
}

std::vector<layer_place> quantized_places(block const& b) {
    std::vector<layer_place> all = b.places();
    std::erase_if(all, [](layer_place const& p) { return !is_quantized(p.role); });
    return all;
}

class quantize_form : public testing::TestWithParam<test::decoder_form> {
protected:
    static constexpr index_t window = 10;
    static constexpr index_t windows = 8;

    /// What a layer was shown.
    struct shown {
        layer_place place;
        matrix weights;
        layer_inputs inputs;
    };

    /// Takes what all layers are shown, in order.
    struct watcher {
        std::vector<shown> seen;
        std::optional<activation_quantizer> input = {};

        quantization operator()(matrix const& w, layer_inputs const& known, layer_place place) {
            seen.push_back({place, w, known});
            quantization q = quantizer_of<int_grid<2>>(true)(w, known); // much is lost
            q.input = input;
            return q;
        }
    };

    calibration text() const { return {.tokens = tokens_, .window = window, .windows = windows}; }

    /// What a model computes of the text, float or quantized.
    struct pass {
        std::vector<block_tape<float>> tapes; // of each block
        matrix x;                             // after the last
    };
    pass run(decoder const& model) const {
        pass p{.tapes = std::vector<block_tape<float>>(model.blocks.size()), .x = model.embed(tokens_, rows_)};
        for (std::size_t i = 0; i < model.blocks.size(); ++i) {
            p.x = forward<linear_layer, float>(model.blocks[i], p.x, rows_, p.tapes[i]);
        }
        return p;
    }

    /// What a layer reads in a block, of all tokens or of those that `sender` has for its expert.
    static matrix read_by(block const& b, layer_place place, block_tape<float> tape,
                          block_tape<float> const* sender = nullptr) {
        auto const network = static_cast<std::size_t>(place.expert);
        if (sender != nullptr) {
            tape.mlps[network].tokens = sender->mlps[network].tokens;
        } else {
            send_all_tokens(b, network, tape);
        }
        switch (place.role) {
        case linear_role::query:
        case linear_role::key:
        case linear_role::value:
            return tape.attention_input.raw;
        case linear_role::output:
            return tape.context.raw;
        case linear_role::down:
            run_hidden(b, network, tape);
            return tape.mlps[network].hidden.raw;
        default:
            return is_routed(b, network) ? nn::rows_of_tokens(tape.mlp_input.raw, tape.mlps[network].tokens)
                                         : tape.mlp_input.raw;
        }
    }
    static matrix read_by(block const& b, layer_place place, pass const& p, std::size_t i) {
        return read_by(b, place, p.tapes[i], &p.tapes[i]);
    }

    /// Calls `f(block, place, what the layer there was shown)` for all layers of the blocks.
    template <class F> void for_layers(watcher const& w, F const& f) const {
        std::size_t first = 0;
        for (std::size_t i = 0; i < model_.blocks.size(); ++i) {
            auto const places = quantized_places(model_.blocks[i]);
            ASSERT_LE(first + places.size(), w.seen.size());
            std::span const here = std::span(w.seen).subspan(first, places.size());
            for (layer_place const place : places) {
                auto const found = std::ranges::find(here, place, &shown::place);
                ASSERT_NE(found, here.end());
                f(i, place, *found);
            }
            first += places.size();
        }
        EXPECT_EQ(first, w.seen.size());
    }

    static void expect_hessian(layer_inputs const& seen, matrix const& inputs) {
        EXPECT_EQ(seen.hessian().tokens(), inputs.rows());
        if (inputs.rows() == 0) {
            return;
        }
        Eigen::MatrixXd const x = inputs.cast<double>();
        Eigen::MatrixXd const h = 2.0 / static_cast<double>(x.rows()) * x.transpose() * x;
        Eigen::MatrixXd const upper = h.triangularView<Eigen::Upper>();
        Eigen::MatrixXd const sum = seen.hessian().sum();
        EXPECT_LE((seen.hessian().scale() * sum - upper).cwiseAbs().maxCoeff(), 1e-4 * h.diagonal().maxCoeff());
    }
    /// C of what is read beside what would be in the float model.
    static void expect_difference(layer_inputs const& seen, matrix const& inputs, matrix const& floats,
                                  double tolerance) {
        ASSERT_TRUE(seen.has_difference());
        if (inputs.rows() == 0) {
            return;
        }
        Eigen::MatrixXd const now = inputs.cast<double>();
        Eigen::MatrixXd const c =
            2.0 / static_cast<double>(now.rows()) * (floats.cast<double>() - now).transpose() * now;
        EXPECT_LE((seen.difference() - c).cwiseAbs().maxCoeff(), tolerance * c.cwiseAbs().maxCoeff() + 1e-7);
    }
    static void expect_near(matrix const& a, matrix const& b) {
        ASSERT_EQ(shape_of(a), shape_of(b));
        if (b.size() > 0) {
            EXPECT_LE((a - b).cwiseAbs().maxCoeff(), 1e-4F * b.cwiseAbs().maxCoeff());
        }
    }

    std::vector<nn::token_id> const tokens_ = test::some_tokens(window * windows);
    nn::token_rows const rows_{.sequences = windows};
    decoder const model_ = test::random_decoder(GetParam().configuration);
};
INSTANTIATE_TEST_SUITE_P(, quantize_form, testing::ValuesIn(test::decoder_forms()),
                         [](auto const& test) { return test.param.name; });

TEST_P(quantize_form, shows_what_quantized_layers_make) {
    decoder model = model_;
    watcher w;
    auto const reports = quantize_decoder(model, w, text());
    pass const quantized = run(model);
    for_layers(w, [&](std::size_t i, layer_place place, shown const& s) {
        expect_hessian(s.inputs, read_by(model.blocks[i], place, quantized, i));
        EXPECT_FALSE(s.inputs.has_difference());
        EXPECT_EQ(s.inputs.kept().rows(), 0);
    });
    ASSERT_EQ(reports.size(), w.seen.size());
    for (std::size_t k = 0; k < reports.size(); ++k) {
        EXPECT_EQ(reports[k].place, w.seen[k].place);
        EXPECT_EQ(reports[k].tokens, w.seen[k].inputs.hessian().tokens());
    }
    for (std::size_t i = 0; i < model.blocks.size(); ++i) { // routers stay as they are
        for (layer_place const place : model.blocks[i].places()) {
            EXPECT_EQ(std::holds_alternative<packed_matrix>(model.blocks[i].linear(place).weight),
                      is_quantized(place.role));
        }
    }
}

TEST_P(quantize_form, shows_what_is_read_in_the_float_model_beside) {
    for (bool const sequential : {true, false}) {
        decoder model = model_;
        auto t = text();
        t.true_sequential = sequential;
        t.float_stream = true;
        watcher w;
        quantize_decoder(model, w, t);
        pass const floats = run(model_);
        matrix x = model.embed(tokens_, rows_); // behind quantized blocks
        std::vector<block_tape<float>> tapes(model.blocks.size());
        std::vector<block const*> read_in;
        for (std::size_t i = 0; i < model.blocks.size(); ++i) {
            read_in.push_back(sequential ? &model.blocks[i] : &model_.blocks[i]);
            forward<linear_layer, float>(*read_in[i], x, rows_, tapes[i]);
            x = forward(model.blocks[i], x, rows_);
        }
        for_layers(w, [&](std::size_t i, layer_place place, shown const& s) {
            matrix const now = read_by(*read_in[i], place, tapes[i], &tapes[i]);
            expect_hessian(s.inputs, now);
            // Of the tokens that the quantized model sends to an expert, wherever they go in the float model.
            expect_difference(s.inputs, now, read_by(model_.blocks[i], place, floats.tapes[i], &tapes[i]), 1e-3);
        });
    }
}

TEST_P(quantize_form, shows_the_inputs_of_the_float_model_whatever_was_quantized_before) {
    pass const floats = run(model_);
    for (bool const sequential : {true, false}) {
        decoder model = model_;
        auto t = text();
        t.float_inputs = true;
        t.true_sequential = sequential;
        watcher w;
        quantize_decoder(model, w, t);
        for_layers(w, [&](std::size_t i, layer_place place, shown const& s) {
            expect_hessian(s.inputs, read_by(model_.blocks[i], place, floats, i));
            EXPECT_FALSE(s.inputs.has_difference());
            EXPECT_EQ(s.inputs.kept().rows(), 0);
        });
        // Which is not what they read otherwise.
        EXPECT_GT((run(model).x - floats.x).cwiseAbs().maxCoeff(), 0.05F * floats.x.cwiseAbs().maxCoeff());
    }
}

TEST_P(quantize_form, keeps_all_inputs_where_it_is_told_to) {
    for (bool const floats : {true, false}) {
        decoder model = model_;
        auto t = text();
        t.float_inputs = floats;
        t.keep_inputs = true;
        watcher w;
        quantize_decoder(model, w, t);
        decoder const& read_in = floats ? model_ : model;
        pass const p = run(read_in);
        for_layers(w, [&](std::size_t i, layer_place place, shown const& s) {
            matrix const inputs = read_by(read_in.blocks[i], place, p, i);
            expect_near(s.inputs.kept(), inputs);
            expect_hessian(s.inputs, inputs);
        });
    }
}

TEST_P(quantize_form, rounds_the_inputs_of_layers) {
    activation_quantizer const to_int4(any_grid(int_grid<4>{}));
    decoder model = model_;
    auto t = text();
    t.activations = to_int4;
    watcher w{.seen = {}, .input = to_int4};
    quantize_decoder(model, w, t);
    pass const quantized = run(model); // its layers round what they read
    for_layers(w, [&](std::size_t i, layer_place place, shown const& s) {
        matrix const inputs = read_by(model.blocks[i], place, quantized, i);
        matrix const rounded = to_int4.round(inputs);
        expect_hessian(s.inputs, rounded);
        expect_difference(s.inputs, rounded, inputs, 1e-3); // from what was not rounded
        ASSERT_TRUE(model.blocks[i].linear(place).input == to_int4);
    });
    // The layers of the forward pass really do: weights and inputs decoded by hand give the same.
    auto const& layer = model.blocks[1].mlps.front().up;
    matrix const x = read_by(model.blocks[1], {linear_role::up}, quantized, 1);
    matrix expected = to_int4.round(x) * dequantize(std::get<packed_matrix>(layer.weight)).transpose();
    if (layer.bias.size() > 0) {
        expected.rowwise() += layer.bias.transpose();
    }
    expect_near(layer.forward(x), expected);
    EXPECT_GT((layer.forward(x) - layer.forward(to_int4.round(x) + 0.3F * x)).cwiseAbs().maxCoeff(), 0.01F);
}

TEST_P(quantize_form, prepares_every_block_before_it_is_quantized) {
    activation_quantizer const to_int4(any_grid(int_grid<4>{}));
    decoder model = model_;
    auto t = text();
    t.float_stream = true;
    std::vector<matrix> before, floats; // hidden states before each block
    t.prepare = [&](block& b, matrix_view x, matrix_view beside, nn::token_rows rows) {
        EXPECT_EQ(rows.sequences, windows);
        EXPECT_TRUE(std::holds_alternative<matrix>(b.query.weight));
        before.emplace_back(x);
        floats.emplace_back(beside);
        b.head_input = to_int4; // of the quantized model only
    };
    watcher w;
    quantize_decoder(model, w, t);
    ASSERT_EQ(before.size(), model.blocks.size());
    matrix x = model.embed(tokens_, rows_), beside = x;
    for (std::size_t i = 0; i < before.size(); ++i) {
        expect_near(before[i], x);
        expect_near(floats[i], beside);
        EXPECT_TRUE(model.blocks[i].head_input == to_int4);
        x = forward(model.blocks[i], x, rows_);
        beside = forward(model_.blocks[i], beside, rows_);
    }
    EXPECT_GT((x - beside).cwiseAbs().maxCoeff(), 0.05F * beside.cwiseAbs().maxCoeff());

    // Attention really rounds each head.
    block const& b = model.blocks[0];
    block plain = b;
    plain.head_input.reset();
    block_tape<float> rounded, whole;
    forward<linear_layer, float>(b, before[0], rows_, rounded);
    forward<linear_layer, float>(plain, before[0], rows_, whole);
    index_t const hd = b.heads.head_dim;
    EXPECT_EQ(rounded.k.raw.middleCols(hd, hd), to_int4.round(whole.k.raw.middleCols(hd, hd)));
    EXPECT_EQ(rounded.q.raw.leftCols(hd), to_int4.round(whole.q.raw.leftCols(hd)));
    EXPECT_NE(rounded.v.raw, whole.v.raw);
}

// Powers of two fold without changing a bit, so that the layers must be shown just the scaled inputs, and weights that
// make up for it, in every block.
TEST_P(quantize_form, folds_scales_before_it_shows_inputs) {
    decoder model = model_;
    auto t = text();
    t.float_inputs = t.keep_inputs = true;
    auto const scale = [](index_t channel) { return std::ldexp(1.0F, static_cast<int>(channel % 3) - 1); };
    t.fold = [&](std::span<matrix const* const> weights, matrix_view inputs) {
        for (matrix const* const m : weights) {
            EXPECT_EQ(m->cols(), inputs.cols());
        }
        return float_vector(float_vector::NullaryExpr(inputs.cols(), scale));
    };
    watcher w;
    quantize_decoder(model, w, t);
    pass const floats = run(model_);
    for_layers(w, [&](std::size_t i, layer_place place, shown const& s) {
        block const& b = model_.blocks[i];
        site const at = site_read_by(b, place.role);
        matrix const inputs = read_by(b, place, floats, i);
        float_vector scales = float_vector::Ones(inputs.cols());
        if (can_fold(b, at, place.expert) && (at != site::hidden || inputs.rows() > 0)) {
            scales = float_vector::NullaryExpr(inputs.cols(), scale);
        }
        if (at == site::context) {
            scales = shared_by_heads(scales, b.heads);
        }
        EXPECT_EQ(s.inputs.kept(), inputs * scales.asDiagonal());
        expect_hessian(s.inputs, inputs * scales.asDiagonal());
        matrix const whole = s.weights * scales.asDiagonal(); // but for the channels that it writes
        auto const& before = std::get<matrix>(b.linear(place).weight);
        if (place.role != linear_role::value && place.role != linear_role::up) {
            EXPECT_EQ(whole, before);
        }
    });
}

// With every token, an expert's evidence does not depend on the router.
TEST_P(quantize_form, shows_all_tokens_to_all_experts_when_asked) {
    for (bool const kept : {false, true}) {
        decoder model = model_;
        auto t = text();
        t.all_experts = true;
        t.keep_inputs = kept;
        watcher w;
        auto const reports = quantize_decoder(model, w, t);
        pass const quantized = run(model); // as the router says
        for_layers(w, [&](std::size_t i, layer_place place, shown const& s) {
            matrix const inputs = read_by(model.blocks[i], place, quantized.tapes[i]);
            ASSERT_EQ(inputs.rows(), window * windows);
            expect_hessian(s.inputs, inputs);
            EXPECT_EQ(s.inputs.kept().rows(), kept ? window * windows : 0);
        });
        for (auto const& report : reports) {
            EXPECT_EQ(report.tokens, window * windows);
            EXPECT_FALSE(report.few_tokens);
        }
    }
}

TEST_P(quantize_form, quantizes_the_head_when_asked) {
    bool const tied = !model_.lm_head.has_value();
    activation_quantizer const to_int8(any_grid(int_grid<8>{}));
    for (bool const rounds : {false, true}) {
        decoder model = model_;
        auto t = text();
        t.head = true;
        watcher w;
        if (rounds) {
            t.activations = to_int8;
            w.input = to_int8;
        }
        std::vector<double> fractions;
        auto const reports = quantize_decoder(model, w, t, {}, [&](std::string_view, double fraction) {
            fractions.push_back(fraction);
            return true;
        });
        EXPECT_TRUE(std::ranges::is_sorted(fractions)); // progress never goes back
        EXPECT_EQ(fractions.back(), 1);
        EXPECT_EQ(reports.back().name, "lm_head");
        EXPECT_EQ(reports.back().place, layer_place{linear_role::head});
        ASSERT_TRUE(model.lm_head);
        ASSERT_TRUE(std::holds_alternative<packed_matrix>(model.lm_head->weight));
        EXPECT_EQ(model.lm_head->input.has_value(), rounds);
        EXPECT_TRUE(std::holds_alternative<matrix>(model.embeddings.weight));
        EXPECT_EQ(std::get<matrix>(model.embeddings.weight), std::get<matrix>(model_.embeddings.weight));

        matrix const last = model_.head_input(run(model).x);
        matrix const read = rounds ? to_int8.round(last) : last;
        shown const head = w.seen.back();
        expect_hessian(head.inputs, read);
        w.seen.pop_back();
        for_layers(w, [](std::size_t, layer_place, shown const&) {});
        // What the head makes by hand: its weight rounded to nearest, its input too.
        linear_layer const& float_head = tied ? model_.embeddings : *model_.lm_head;
        matrix const rounded =
            dequantize(quantizer_of<int_grid<2>>(true)(std::get<matrix>(float_head.weight), {}).weights);
        expect_near(model.head().forward(last), read * rounded.transpose());
    }
    decoder model = model_;
    watcher w;
    auto const reports = quantize_decoder(model, w, text());
    EXPECT_NE(reports.back().name, "lm_head");
    EXPECT_EQ(model.lm_head.has_value(), !tied);
    for_layers(w, [](std::size_t, layer_place, shown const&) {});
}

TEST_P(quantize_form, shows_the_head_the_inputs_of_the_float_model) {
    decoder model = model_;
    auto t = text();
    t.head = true;
    t.float_inputs = true;
    t.keep_inputs = true;
    watcher w;
    quantize_decoder(model, w, t);
    matrix const last = model_.head_input(run(model_).x);
    expect_near(w.seen.back().inputs.kept(), last);
    expect_hessian(w.seen.back().inputs, last);
}

/// A model whose routers never choose the last of three experts.
class quantize_experts : public testing::Test {
protected:
    quantize_experts() {
        for (auto const& form : test::decoder_forms()) {
            if (form.name == "experts_sigmoid_and_shared") {
                model_ = test::random_decoder(form.configuration);
            }
        }
        for (block& b : model_.blocks) {
            b.router.value().bias(2) = -1000;
        }
    }

    std::vector<nn::token_id> const tokens_ = test::some_tokens(20);
    calibration const text_{.tokens = tokens_, .window = 10, .windows = 2};
    decoder model_;
};

TEST_F(quantize_experts, reports_those_that_saw_fewer_tokens_than_inputs) {
    auto short_text = text_;
    short_text.windows = 1;
    for (bool const all : {false, true}) {
        decoder model = model_;
        short_text.all_experts = all;
        auto const reports = quantize_decoder(model, quantizer_of<int_grid<4>>(true), short_text);
        ASSERT_EQ(reports.size(), 2U * (4 + 3 * 4));
        for (auto const& r : reports) {
            bool const expert = r.place.role >= linear_role::gate && r.place.expert < 3;
            EXPECT_EQ(r.tokens, !expert || all || r.place.expert < 2 ? 10 : 0) << r.name;
            // Of 12 inputs, or 10 inside an expert.
            EXPECT_EQ(r.few_tokens, expert && !all && (r.place.expert == 2 || r.place.role != linear_role::down))
                << r.name;
            EXPECT_GT(r.bits_per_weight, 0);
            EXPECT_EQ(r.error > 0, r.tokens > 0) << r.name;
        }
    }
}

TEST_F(quantize_experts, need_evidence_where_their_solver_does) {
    decoder model = model_;
    std::string const message =
        failure_message([&] { quantize_decoder(model, quantizer_of<int_grid<4>>(false), text_); });
    EXPECT_TRUE(message.starts_with("layer 'layers.0.experts.2.gate_proj'")) << message;
    EXPECT_TRUE(contains(message, "--all-experts")) << message;

    model = model_;
    auto all = text_;
    all.all_experts = true;
    for (auto const& r : quantize_decoder(model, quantizer_of<int_grid<4>>(false), all)) {
        EXPECT_EQ(r.tokens, 20) << r.name;
        EXPECT_EQ(r.solve.fallback, "");
    }

    model = model_;
    auto const reports = quantize_decoder(model, quantizer_of<int_grid<4>>(false, {.or_rtn = true}), text_);
    for (auto const& r : reports) {
        EXPECT_EQ(!r.solve.fallback.empty(), r.tokens == 0) << r.name << ' ' << r.solve.fallback;
    }
}

} // namespace
} // namespace detent

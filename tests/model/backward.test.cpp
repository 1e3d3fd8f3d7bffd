// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <cmath>
#include <cstddef>
#include <map>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <gtest/gtest.h>

#include "detent/core/thread_team.hpp"
#include "detent/model/backward.hpp"
#include "detent/model/block_flow.hpp"
#include "detent/model/dense_block.hpp"
#include "model/random_decoder.hpp"
#include "model/reference_gradient.hpp"
#include "nn/finite_differences.hpp"

namespace detent {
namespace {

class backward_of : public testing::TestWithParam<nlohmann::json> {};
INSTANTIATE_TEST_SUITE_P(, backward_of, testing::Values(test::llama_json(), test::opt_json()),
                         [](auto const& test) { return test.param["model_type"].template get<std::string>(); });

/// The gradients of all linear layers by name, and the loss.
std::map<std::string, matrix> gradients(decoder const& model, std::vector<nn::token_id> const& tokens, double factor,
                                        double& loss, executor_ref executor = {}) {
    std::map<std::string, matrix> found;
    loss = backward(
        model, tokens, 2, factor,
        [&](index_t b, layer_place place, matrix_view input, matrix_view gradient) {
            auto const& layer = model.blocks[static_cast<std::size_t>(b)].linear(place);
            EXPECT_EQ(input.cols(), layer.shape().cols) << layer.name;
            EXPECT_EQ(gradient.cols(), layer.shape().rows) << layer.name;
            EXPECT_TRUE(found.emplace(layer.name, gradient.transpose() * input).second) << layer.name;
        },
        executor);
    return found;
}

TEST_P(backward_of, gives_the_derivatives_of_the_scalar_reference) {
    test::random_weights source;
    auto const configuration = parse_configuration(GetParam(), "config.json");
    auto const model = assemble_decoder(configuration, "", source);
    auto const tokens = test::some_tokens(2 * 9);
    test::reference_loss reference(configuration, source.tensors, tokens, 2);

    double loss = 0;
    auto const found = gradients(model, tokens, 0.5, loss);
    EXPECT_NEAR(loss, reference(), 1e-5 * loss);
    EXPECT_EQ(found.size(), configuration.type == "llama" ? 14U : 12U);
    for (auto const& [name, gradient] : found) {
        double const size = static_cast<double>(gradient.cwiseAbs().maxCoeff());
        EXPECT_GT(size, 0) << name;
        for (index_t i = 0; i < gradient.rows(); i += 3) {
            for (index_t j = i % 4; j < gradient.cols(); j += 4) {
                ASSERT_NEAR(static_cast<double>(gradient(i, j)), 0.5 * reference.derivative(name + ".weight", i, j),
                            1e-4 * size)
                    << name << ' ' << i << ' ' << j;
            }
        }
    }
}

/// The cross entropy of a decoder whose blocks, and what is behind them, are in double.
class double_loss {
public:
    double_loss(decoder const& model, std::vector<nn::token_id> tokens, index_t sequences)
        : model_(model), tokens_(std::move(tokens)), rows_{.sequences = sequences},
          embedded_(model.embed(tokens_, rows_).cast<double>()) {
        for (block const& b : model.blocks) {
            blocks.push_back(dense<double>(b));
        }
    }

    /// Summed over all tokens but the first of each sequence.
    double operator()() const {
        test::matrix64 x = embedded_;
        for (auto const& b : blocks) {
            block_tape<double> tape;
            x = forward(b, x, rows_, tape);
        }
        if (auto const& norm = model_.final_norm) {
            x = basic_norm_layer<double>{.type = norm->type,
                                         .weight = norm->weight.cast<double>(),
                                         .bias = norm->bias.cast<double>(),
                                         .eps = static_cast<double>(norm->eps)}
                    .forward(x);
        }
        if (model_.project_out) {
            x = x * weight_of(*model_.project_out).transpose();
        }
        auto const& c = model_.configuration;
        x = c.logit_multiplier * x * weight_of(model_.head()).transpose();
        if (c.logit_cap != 0) {
            x = c.logit_cap * (x.array() / c.logit_cap).tanh();
        }
        double loss = 0;
        index_t const length = rows_.length(x.rows());
        for (index_t t = 0; t < x.rows(); ++t) {
            if (t % length + 1 < length) {
                loss += std::log(x.row(t).array().exp().sum()) - x(t, tokens_[static_cast<std::size_t>(t) + 1]);
            }
        }
        return loss;
    }

    std::vector<dense_block<double>> blocks;

private:
    static test::matrix64 weight_of(linear_layer const& layer) { return std::get<matrix>(layer.weight).cast<double>(); }

    decoder const& model_;
    std::vector<nn::token_id> tokens_;
    nn::token_rows rows_;
    test::matrix64 embedded_;
};

class backward_of_form : public testing::TestWithParam<test::decoder_form> {};
INSTANTIATE_TEST_SUITE_P(, backward_of_form, testing::ValuesIn(test::decoder_forms()),
                         [](auto const& test) { return test.param.name; });

TEST_P(backward_of_form, gives_the_derivatives_of_the_model_in_double) {
    decoder const model = test::random_decoder(GetParam().configuration);
    auto const tokens = test::some_tokens(2 * 9);
    double_loss reference(model, tokens, 2);
    double loss = 0;
    auto const found = gradients(model, tokens, 0.5, loss);
    EXPECT_NEAR(loss, reference(), 1e-5 * loss);
    for (std::size_t i = 0; i < model.blocks.size(); ++i) {
        for (layer_place const place : model.blocks[i].places()) {
            std::string const& name = model.blocks[i].linear(place).name;
            matrix const& gradient = found.at(name);
            double const size = static_cast<double>(gradient.cwiseAbs().maxCoeff());
            EXPECT_GT(size, 0) << name;
            auto& weight = reference.blocks[i].linear(place).weight;
            for (index_t k = 0; k < weight.size(); k += 1 + weight.size() / 7) {
                double const before = weight.data()[k], h = 1e-4;
                weight.data()[k] = before + h;
                double const high = reference();
                weight.data()[k] = before - h;
                double const slope = (high - reference()) / (2 * h);
                weight.data()[k] = before;
                ASSERT_NEAR(static_cast<double>(gradient.data()[k]), 0.5 * slope, 1e-4 * size) << name << ' ' << k;
            }
        }
    }
}

TEST_P(backward_of, gives_the_same_bits_for_any_number_of_threads) {
    auto const model = test::random_decoder(GetParam());
    auto const tokens = test::some_tokens(2 * 20);
    double loss = 0;
    auto const expected = gradients(model, tokens, 1, loss);
    for (int const count : {2, 3}) {
        thread_team executor(count);
        double again = 0;
        EXPECT_EQ(gradients(model, tokens, 1, again, executor), expected);
        EXPECT_EQ(again, loss);
    }
}

} // namespace
} // namespace detent

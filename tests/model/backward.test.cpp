// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "detent/model/backward.hpp"

#include <map>
#include <string>

#include <gtest/gtest.h>

#include "model/reference_gradient.hpp"

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
        [&](index_t b, linear_role role, matrix_view input, matrix_view gradient) {
            auto const& layer = model.blocks[static_cast<std::size_t>(b)].linear(role);
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
    EXPECT_EQ(found.size(), configuration.family == model_family::llama ? 14U : 12U);
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

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <array>
#include <cmath>
#include <limits>
#include <random>
#include <span>
#include <vector>

#include <gtest/gtest.h>

#include "detent/core/thread_team.hpp"
#include "detent/nn/adamw.hpp"

namespace detent {

namespace {

std::vector<float> random_floats(std::size_t count, unsigned seed, float scale = 1.0F) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0.0F, scale);
    std::vector<float> numbers(count);
    for (float& x : numbers) {
        x = normal(random);
    }
    return numbers;
}

/// Algorithm 2 of Loshchilov and Hutter for one parameter, in double.
struct slow_adamw {
    double m = 0, v = 0;
    double step(double parameter, double g, int steps, double rate, nn::adamw_options const& o) {
        m = o.beta1 * m + (1 - o.beta1) * g;
        v = o.beta2 * v + (1 - o.beta2) * g * g;
        double const m_hat = m / (1 - std::pow(o.beta1, steps));
        double const v_hat = v / (1 - std::pow(o.beta2, steps));
        return parameter - rate * (m_hat / (std::sqrt(v_hat) + o.eps) + o.weight_decay * parameter);
    }
};

nn::adamw_options const options{.learning_rate = 1e-2, .weight_decay = 0.1};

} // namespace

TEST(adamw, matches_its_algorithm_in_double) {
    for (nn::adamw_options const& o : {nn::adamw_options{}, options, nn::adamw_options{1e-3, 0.8, 0.95, 1e-2, 0.5}}) {
        std::size_t const count = 131;
        std::vector<float> parameters = random_floats(count, 1);
        std::vector<double> expected(parameters.begin(), parameters.end());
        std::vector<slow_adamw> slow(count);
        nn::adamw optimizer(count, o);
        EXPECT_EQ(optimizer.options(), o);
        for (int steps = 1; steps <= 50; ++steps) {
            std::vector<float> gradients = random_floats(count, 100 + static_cast<unsigned>(steps), 1e-3F);
            gradients[0] = 0; // stays without a gradient
            gradients[1] = 1e-12F;
            double const rate = o.learning_rate * (steps % 10 + 1) / 10; // a schedule
            optimizer.step(parameters, gradients, rate);
            for (std::size_t i = 0; i < count; ++i) {
                expected[i] = slow[i].step(expected[i], double(gradients[i]), steps, rate, o);
                double const moved = 50 * o.learning_rate; // at most
                ASSERT_NEAR(parameters[i], expected[i], 1e-5 * moved + 3e-6 * std::abs(expected[i])) << steps;
                ASSERT_NEAR(optimizer.state().first[i], slow[i].m, 1e-9);
                ASSERT_NEAR(optimizer.state().second[i], slow[i].v, 2e-6 * slow[i].v);
            }
            EXPECT_EQ(optimizer.state().steps, steps);
        }
    }
}

TEST(adamw, the_first_step_moves_by_the_learning_rate_against_the_sign) {
    std::vector<float> parameters{1.0F, 1.0F, 1.0F};
    nn::adamw optimizer(3, {.learning_rate = 0.25});
    optimizer.step(parameters, std::vector<float>{1e-3F, -40.0F, 0.0F});
    EXPECT_NEAR(parameters[0], 0.75F, 1e-5F);
    EXPECT_NEAR(parameters[1], 1.25F, 1e-6F);
    EXPECT_EQ(parameters[2], 1.0F);
}

TEST(adamw, goes_on_from_its_state_with_the_same_bits) {
    std::size_t const count = 100;
    std::vector<float> parameters = random_floats(count, 2), resumed = parameters;
    nn::adamw whole(count, options), first(count, options);
    for (unsigned step = 0; step < 5; ++step) {
        whole.step(parameters, random_floats(count, 10 + step));
        first.step(resumed, random_floats(count, 10 + step));
    }
    nn::adamw_state const saved = first.state();
    nn::adamw second(saved, options), forgetful(count, options);
    std::vector<float> forgotten = resumed;
    for (unsigned step = 5; step < 10; ++step) {
        whole.step(parameters, random_floats(count, 10 + step));
        second.step(resumed, random_floats(count, 10 + step));
        forgetful.step(forgotten, random_floats(count, 10 + step));
    }
    EXPECT_EQ(resumed, parameters);
    EXPECT_EQ(second.state(), whole.state());
    EXPECT_NE(forgotten, parameters);
}

TEST(adamw, clip_norm_takes_all_gradients_together) {
    std::vector<float> const a = random_floats(40000, 3), b = random_floats(7, 4), none;
    double squares = 0;
    for (auto const* part : {&a, &b}) {
        for (float const x : *part) {
            squares += double(x) * x;
        }
    }
    std::array<std::span<float const>, 3> const parts{a, none, b};
    nn::clipping const clipped = nn::clip_norm(parts, 2.5);
    EXPECT_NEAR(clipped.norm, std::sqrt(squares), 1e-12 * clipped.norm);
    EXPECT_NEAR(clipped.factor, 2.5 / std::sqrt(squares), 1e-12);
    EXPECT_EQ(nn::clip_norm(parts, 1e4).factor, 1.0);
    EXPECT_EQ(nn::clip_norm({}, 1.0).norm, 0.0);

    std::vector<float> const large{3e30F, 4e30F}, bad{std::numeric_limits<float>::quiet_NaN()};
    EXPECT_NEAR(nn::clip_norm(std::array<std::span<float const>, 1>{large}, 1.0).norm / 5e30, 1, 1e-6);
    EXPECT_FALSE(std::isfinite(nn::clip_norm(std::array<std::span<float const>, 1>{bad}, 1.0).norm));
}

TEST(adamw, threads_do_not_change_a_bit) {
    std::size_t const count = 50000;
    std::vector<float> const gradients = random_floats(count, 5);
    std::array<std::span<float const>, 2> const parts{gradients, gradients};
    thread_team one(1);
    for (index_t const workers : {2, 3}) {
        thread_team more(workers);
        std::vector<float> alone = random_floats(count, 6), together = alone;
        nn::adamw optimizer1(count, options), optimizer2(count, options);
        for (int step = 0; step < 3; ++step) {
            optimizer1.step(alone, gradients, one);
            optimizer2.step(together, gradients, more);
        }
        EXPECT_EQ(alone, together);
        EXPECT_EQ(optimizer1.state(), optimizer2.state());
        EXPECT_EQ(nn::clip_norm(parts, 1.0, one).norm, nn::clip_norm(parts, 1.0, more).norm);
    }
}

} // namespace detent

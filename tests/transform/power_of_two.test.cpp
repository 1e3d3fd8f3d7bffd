// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "detent/transform/power_of_two.hpp"
#include "detent/transform/transform.hpp"
#include "io/failure_message.hpp"
#include "nn/random_matrix.hpp"
#include "transform/factors_of.hpp"

namespace {

using namespace detent;

static_assert(Transform<power_of_two>);

/// Inputs (token, in) of different sizes; that of channel 3 is always 0.
matrix inputs_of_many_sizes() {
    matrix x = test::random_matrix(50, 12, 1);
    for (index_t k = 0; k < x.cols(); ++k) {
        x.col(k) *= std::exp2(1.3F * static_cast<float>(k - 5));
    }
    x.col(3).setZero();
    return x;
}

using test::factors_of;

TEST(power_of_two, brings_each_input_nearest_to_the_largest) {
    matrix const x = inputs_of_many_sizes();
    matrix const w = test::random_matrix(20, 12, 2);
    float_vector const largest = x.cwiseAbs().colwise().maxCoeff().transpose();
    for (int const most : {0, 1, 3, 7, 15}) {
        auto const factors = factors_of(power_of_two{most}.fit(w, layer_inputs::of(x)));
        ASSERT_EQ(factors.size(), 12U);
        for (index_t k = 0; k < 12; ++k) {
            float best = 1; // of all powers that there are, by how many octaves it is off
            auto const off = [&](float factor) {
                return std::abs(std::log2(largest(k) * factor / largest.maxCoeff()));
            };
            for (int bits = 1; bits <= most; ++bits) {
                if (off(std::ldexp(1.0F, bits)) < off(best)) {
                    best = std::ldexp(1.0F, bits);
                }
            }
            float const expected = k == 3 ? std::ldexp(1.0F, most) : best;
            EXPECT_EQ(factors[static_cast<std::size_t>(k)], expected) << most << ' ' << k;
        }
    }
}

TEST(power_of_two, rounds_nothing) {
    matrix const x = inputs_of_many_sizes();
    matrix const w = test::random_matrix(20, 12, 2);
    layer_inputs const known = layer_inputs::of(x);
    input_map const map = power_of_two{15}.fit(w, known);
    EXPECT_EQ(map.back(map.of_weights(w)), w);
    EXPECT_EQ(map.of_weights(map.back(w)), w);
    EXPECT_EQ(matrix(map.apply(x) * map.of_weights(w).transpose()), matrix(x * w.transpose()));
    // To the bit, what is known of mapped inputs is what would be known had they been mapped before.
    EXPECT_EQ(known.mapped(map).hessian().sum(), hessian::of(map.apply(x)).sum());
}

TEST(power_of_two, takes_inputs_that_were_always_0) {
    input_map const map = power_of_two{}.fit(matrix::Ones(2, 3), layer_inputs::of(matrix::Zero(5, 3)));
    EXPECT_EQ(factors_of(map), (std::vector<float>{8, 8, 8}));
}

TEST(power_of_two, refuses_what_it_cannot_do) {
    matrix const w = test::random_matrix(20, 12, 2);
    layer_inputs const known = layer_inputs::of(inputs_of_many_sizes());
    EXPECT_EQ(failure_message([&] { power_of_two{}.fit(w, layer_inputs(known.hessian())); }),
              "power_of_two: needs the largest of each input, not only their Hessian");
    EXPECT_EQ(failure_message([&] { power_of_two{-1}.fit(w, known); }), "power_of_two: cannot shift by -1 bits");
    EXPECT_EQ(failure_message([&] { power_of_two{16}.fit(w, known); }), "power_of_two: cannot shift by 16 bits");
}

} // namespace

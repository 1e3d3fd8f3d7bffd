// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <cmath>

#include <gtest/gtest.h>

#include "detent/core/eigen.hpp"
#include "detent/model/norm_layer.hpp"
#include "detent/nn/norm.hpp"

namespace detent {
namespace {

using numbers = basic_matrix<double>;
using layer = basic_norm_layer<double>;

numbers some(index_t rows, index_t cols, double phase) {
    return numbers::NullaryExpr(rows, cols, [&](index_t r, index_t c) {
        return 0.3 + std::sin(1.7 * static_cast<double>(r) + 2.3 * static_cast<double>(c) + phase);
    });
}

/// RMS norms, layer norms and scales, of all features or of those of heads.
layer some_layer(nn::norm_kind kind, index_t width, index_t weights) {
    layer n{.name = "n", .type = kind, .weight = some(weights, 1, 3).col(0), .eps = 1e-3, .width = width};
    if (kind == nn::norm_kind::layer) {
        n.bias = some(weights, 1, 4).col(0);
    }
    return n;
}

std::vector<layer> some_layers() {
    using enum nn::norm_kind;
    return {some_layer(rms, 0, 12),
            some_layer(nn::norm_kind::layer, 0, 12),
            some_layer(scale, 0, 12),
            some_layer(rms, 4, 4),
            some_layer(rms, 4, 12),
            some_layer(nn::norm_kind::layer, 4, 4),
            some_layer(nn::norm_kind::layer, 4, 12)};
}

TEST(norm_layer, is_what_its_definition_says) {
    numbers const x = some(5, 12, 0);
    for (layer const& n : some_layers()) {
        numbers const y = n.forward(basic_matrix_view<double>(x));
        index_t const width = n.width > 0 ? n.width : 12;
        for (index_t t = 0; t < 5; ++t) {
            for (index_t i = 0; i < 12; ++i) {
                auto const part = x.row(t).segment(i / width * width, width).array();
                double const mean = n.type == nn::norm_kind::layer ? part.mean() : 0.0;
                double const scale =
                    n.type == nn::norm_kind::scale ? 1.0 : 1 / std::sqrt((part - mean).square().mean() + n.eps);
                index_t const weight = i % n.weight.size();
                double const expected =
                    (x(t, i) - mean) * scale * n.weight(weight) + (n.bias.size() > 0 ? n.bias(weight) : 0.0);
                ASSERT_NEAR(y(t, i), expected, 1e-12) << static_cast<int>(n.type) << ' ' << n.width;
            }
        }
    }
}

TEST(norm_layer, gradients_are_those_of_finite_differences) {
    numbers const x = some(3, 12, 0), g = some(3, 12, 9);
    auto const loss = [&](layer const& n, numbers const& at) {
        return n.forward(basic_matrix_view<double>(at)).cwiseProduct(g).sum();
    };
    double const step = 1e-6;
    for (layer n : some_layers()) {
        layer gradient = n.zeros();
        EXPECT_EQ(gradient.weight.size(), n.weight.size());
        EXPECT_EQ(gradient.bias.size(), n.bias.size());
        EXPECT_EQ(gradient.weight.cwiseAbs().sum() + gradient.bias.cwiseAbs().sum(), 0);
        numbers const back =
            n.input_gradient(basic_matrix_view<double>(x), basic_matrix_view<double>(g), {}, &gradient);
        for (index_t i = 0; i < x.size(); ++i) {
            numbers above = x, below = x;
            above.data()[i] += step;
            below.data()[i] -= step;
            ASSERT_NEAR(back.data()[i], (loss(n, above) - loss(n, below)) / (2 * step), 1e-7) << i;
        }
        for (auto const& [values, slopes] : {std::pair{&n.weight, &gradient.weight}, {&n.bias, &gradient.bias}}) {
            for (index_t i = 0; i < values->size(); ++i) {
                double const before = (*values)(i);
                (*values)(i) = before + step;
                double const above = loss(n, x);
                (*values)(i) = before - step;
                double const below = loss(n, x);
                (*values)(i) = before;
                ASSERT_NEAR((*slopes)(i), (above - below) / (2 * step), 1e-7) << i;
            }
        }
        EXPECT_EQ(n.input_gradient(basic_matrix_view<double>(x), basic_matrix_view<double>(g)), back);
    }
}

} // namespace
} // namespace detent

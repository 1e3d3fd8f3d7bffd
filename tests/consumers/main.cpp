// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// A program of a user: three quantizers, one product.
#include <detent/detent.hpp>

int main() {
    using namespace detent;
    matrix const weights = matrix::Random(24, 64);      // (out, in)
    matrix const activations = matrix::Random(200, 64); // (token, in)
    Eigen::VectorXf const x = activations.row(0);

    constexpr quantizer<int_grid<4>, per_group<32>, gptq<>> int4;
    constexpr quantizer<e2m1, per_channel> fp4;
    quantizer<nf4, per_group<>> normal;
    normal.granularity.width = 16;

    hessian const inputs = hessian::of(activations);
    Eigen::VectorXf const exact = weights * x;
    auto const close = [&](Eigen::VectorXf const& y) { return (y - exact).norm() < 0.3F * exact.norm(); };
    return close(int4(weights, inputs) * x) && close(fp4(weights) * x) && close(normal(weights) * x) ? 0 : 1;
}

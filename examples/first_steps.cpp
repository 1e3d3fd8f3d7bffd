// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// The example of the README.
#include <iostream>

//! [first steps]
#include <detent/detent.hpp>

using namespace detent;

int main() {
    matrix const weights = matrix::Random(256, 512);       // (out, in)
    matrix const activations = matrix::Random(1024, 512);  // (token, in)

    constexpr quantizer<int_grid<4>, per_group<128>, gptq<>> q{.solver = {.damping = 0.05}};
    auto const w4 = q(weights, hessian::of(activations));  // packed codes, scales and zero points
    Eigen::VectorXf const y = w4 * activations.row(0).transpose();

    std::cout << w4.bits_per_weight() << " bits per weight, relative error "
              << (y - weights * activations.row(0).transpose()).norm() / y.norm() << '\n';
}
//! [first steps]

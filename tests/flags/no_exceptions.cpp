// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// The program of the README, compiled without exceptions and RTTI. With the argument `abort` or `handler` it then asks
// for what is an error.

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "detent/detent.hpp"

#if defined(__cpp_exceptions) || defined(__cpp_rtti)
#error "this program is about a compiler without exceptions and RTTI"
#endif

using namespace detent;

int main(int argc, char** argv) {
    char const* const task = argc > 1 ? argv[1] : "";
    matrix const weights = matrix::Random(256, 512);      // (out, in)
    matrix const activations = matrix::Random(1024, 512); // (token, in)

    constexpr quantizer<int_grid<4>, per_group<128>, gptq<>> q{.solver = {.damping = 0.05}};
    if (std::strcmp(task, "abort") == 0) {
        std::signal(SIGABRT, [](int) {
            std::fputs("aborted\n", stderr);
            std::_Exit(EXIT_SUCCESS);
        });
        q(matrix(0, 512), hessian::of(activations));
    } else if (std::strcmp(task, "handler") == 0) {
        on_error() = [](std::exception const& e) {
            std::fprintf(stderr, "the program's own: %s, about %s\n", e.what(),
                         static_cast<error const&>(e).subject().c_str());
            std::_Exit(EXIT_SUCCESS);
        };
        q(matrix(0, 512), hessian::of(activations));
    }
    auto const w4 = q(weights, hessian::of(activations)); // packed codes, scales and zero points
    Eigen::VectorXf const y = w4 * activations.row(0).transpose();

    float const error = (y - weights * activations.row(0).transpose()).norm() / y.norm();
    std::printf("%.3f bits per weight, relative error %.3f\n", w4.bits_per_weight(), static_cast<double>(error));
    return error < 0.1F ? EXIT_SUCCESS : EXIT_FAILURE;
}

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// GPTQ has to know the Hessian of the layer's inputs.
// expect: no match for call|no matching function for call|constraints not satisfied

#include "detent/grid/int_grid.hpp"
#include "detent/quantizer/quantizer.hpp"
#include "detent/solver/gptq.hpp"

void run(detent::matrix const& weights, [[maybe_unused]] detent::hessian const& h) {
    detent::quantizer<detent::int_grid<4>, detent::per_channel, detent::gptq<>> const q;
#ifdef SLIP
    static_cast<void>(q(weights));
#else
    static_cast<void>(q(weights, h));
#endif
}

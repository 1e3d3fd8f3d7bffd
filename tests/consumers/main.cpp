// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <detent/detent.hpp>

int main() {
    detent::matrix const m = detent::matrix::Constant(2, 3, static_cast<float>(detent::half(1.0F)));
    return detent::shape_of(m) == detent::extents{2, 3} && m.sum() == 6.0F ? 0 : 1;
}

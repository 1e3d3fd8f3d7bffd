// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// A unit that is compiled several times, with SUM its only function: matrices that functions of Eigen and of detent, in
// which the compiler inlines what it likes, give to each other and free.
#include <detent/core/eigen.hpp>

extern "C" [[gnu::visibility("default")]] double SUM() {
    detent::matrix a(24, 63);
    detent::matrix b(24, 63);
    for (detent::index_t i = 0; i < a.size(); ++i) {
        a.data()[i] = static_cast<float>(i % 17);
        b.data()[i] = static_cast<float>(i % 5);
    }
    detent::matrix const c = 2 * a + a.cwiseProduct(b);
    return detent::to_double(c).sum() + detent::to_float(detent::to_double(c), 3).sum();
}

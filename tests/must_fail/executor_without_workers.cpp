// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// An executor has to say how many workers it has.
// expect: workers

#include "detent/core/executor.hpp"

struct pool {
#ifndef SLIP
    static detent::index_t workers() { return 1; }
#endif
    static void for_each(detent::index_t n, detent::function_ref<void(detent::index_t)> f) {
        detent::serial::for_each(n, f);
    }
};

void run(pool& p) {
    detent::executor_ref const executor = p;
    executor.for_each(3, [](detent::index_t) {});
}

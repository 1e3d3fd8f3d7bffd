// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// The values of a codebook ascend.
// expect: the values of a codebook ascend

#include "detent/grid/codebook_grid.hpp"

struct table {
#ifdef SLIP
    static constexpr std::array<float, 3> values{-1, 1, 1};
#else
    static constexpr std::array<float, 3> values{-1, 0, 1};
#endif
};

float highest() { return detent::codebook_grid<table>::highest(); }

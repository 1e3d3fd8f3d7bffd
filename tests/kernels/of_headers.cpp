// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "of_headers.hpp"

#include <cstring>

#include "detent/kernel/multiply.hpp"

void detent::test::multiply_of_headers(void const* w, float const* x, std::int64_t x_stride, std::int64_t tokens,
                                       float* y, std::int64_t y_stride, int format) {
    packed_view view;
    std::memcpy(&view, w, sizeof view);
    kernel::multiply(view, x, x_stride, tokens, y, y_stride, {}, static_cast<input_format>(format));
}

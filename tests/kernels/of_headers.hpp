// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstdint>

namespace detent::test {

/// y = x W^T by the headers' kernel; `w` is a packed_view.
void multiply_of_headers(void const* w, float const* x, std::int64_t x_stride, std::int64_t tokens, float* y,
                         std::int64_t y_stride, int format);

} // namespace detent::test

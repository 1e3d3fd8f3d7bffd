// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// The products for one instruction set, DETENT_UNIT, which the compiler's flags give.

#include <cstdint>
#include <cstring>

#include "detent/core/function_ref.hpp"
#include "detent/kernel/compiled.hpp"
#include "detent/kernel/multiply.hpp"
#include "detent/kernel/transposed.hpp"

#define DETENT_TEXT_OF(name) #name
#define DETENT_TEXT(name) DETENT_TEXT_OF(name)

namespace {

using namespace detent;

/// The caller's loops as an executor of this unit.
struct callers_executor {
    compiled::loop loop;

    index_t workers() const { return loop.workers; }
    void for_each(index_t n, function_ref<void(index_t)> f) const {
        auto const body = [](void* data, std::int64_t i) { (*static_cast<function_ref<void(index_t)>*>(data))(i); };
        loop.for_each(loop.executor, n, body, &f);
    }
};

packed_view view(void const* w) {
    packed_view result;
    std::memcpy(&result, w, sizeof result); // the caller's type has another name
    return result;
}

void multiply(void const* w, float const* x, std::int64_t x_stride, std::int64_t tokens, float* y,
              std::int64_t y_stride, compiled::loop loop, int format) {
    callers_executor const executor{loop};
    kernel::multiply(view(w), x, x_stride, tokens, y, y_stride, executor, static_cast<input_format>(format));
}

bool multiply_codes(void const* w, compiled::activation_codes const& x, float* y, std::int64_t y_stride,
                    compiled::loop loop) {
    quantized_activations codes{.shape = {x.tokens, x.features},
                                .bits = x.bits,
                                .table = {x.table, x.table + (std::int64_t{1} << x.bits)},
                                .width = x.width,
                                .scales = {},
                                .shifts = {},
                                .codes = {x.codes, x.codes + x.tokens * x.features}};
    for (std::int64_t i = 0; i < x.scale_count; ++i) {
        codes.scales.push_back({x.scales[2 * i], x.scales[2 * i + 1]});
    }
    if (x.shifts != nullptr) {
        codes.shifts.assign(x.shifts, x.shifts + x.features);
    }
    callers_executor const executor{loop};
    return kernel::multiply(view(w), codes, y, y_stride, executor);
}

void multiply_transposed(void const* w, float const* g, std::int64_t g_stride, std::int64_t tokens, float* y,
                         std::int64_t y_stride, compiled::loop loop) {
    callers_executor const executor{loop};
    kernel::multiply_transposed(view(w), g, g_stride, tokens, y, y_stride, executor);
}

} // namespace

extern "C" {
extern compiled::unit const DETENT_UNIT_SYMBOL;
compiled::unit const DETENT_UNIT_SYMBOL{compiled::layout_of_headers(), DETENT_TEXT(DETENT_UNIT), multiply,
                                        multiply_codes, multiply_transposed};
}

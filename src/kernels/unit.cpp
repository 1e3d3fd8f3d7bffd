// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// The products for one instruction set, DETENT_UNIT, which the compiler's flags give.

#include <cstdint>
#include <cstring>
#include <span>

#include "detent/core/function_ref.hpp"
#include "detent/kernel/compiled.hpp"
#include "detent/kernel/multiply.hpp"
#include "detent/kernel/transposed.hpp"
#include "detent/simd/product.hpp"

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

// The types of the caller have other names, but the same members. This library is compiled apart from its callers, so
// that no optimizer sees both names.
std::span<matrix_product const> all(void const* products, std::int64_t count) {
    return {static_cast<matrix_product const*>(products), static_cast<std::size_t>(count)};
}

void multiply(void const* products, std::int64_t count, float const* x, std::int64_t x_stride, std::int64_t tokens,
              compiled::loop loop, int format) {
    callers_executor const executor{loop};
    kernel::multiply(all(products, count), x, x_stride, tokens, executor_ref(executor).with_memory(loop.workspace),
                     static_cast<input_format>(format));
}

std::int64_t multiply_codes(void const* products, std::int64_t count, compiled::activation_codes const& x,
                            compiled::loop loop) {
    activation_view const codes{
        .shape = {x.tokens, x.features},
        .bits = x.bits,
        .table = {x.table, std::size_t{1} << x.bits},
        .width = x.width,
        .scales = {reinterpret_cast<tile_scale const*>(x.scales), static_cast<std::size_t>(x.scale_count)},
        .shifts = {x.shifts, static_cast<std::size_t>(x.shifts != nullptr ? x.features : 0)},
        .codes = {x.codes, static_cast<std::size_t>(x.tokens * x.features)}};
    callers_executor const executor{loop};
    return kernel::multiply(all(products, count), codes, executor_ref(executor).with_memory(loop.workspace));
}

void multiply_transposed(void const* w, float const* g, std::int64_t g_stride, std::int64_t tokens, float* y,
                         std::int64_t y_stride, compiled::loop loop) {
    callers_executor const executor{loop};
    kernel::multiply_transposed(view(w), g, g_stride, tokens, y, y_stride,
                                executor_ref(executor).with_memory(loop.workspace));
}

template <class T, class Sum>
void add_product(std::int64_t m, std::int64_t n, std::int64_t k, T factor, T const* a, std::int64_t a_row_stride,
                 std::int64_t a_col_stride, T const* b, std::int64_t b_row_stride, std::int64_t b_col_stride, Sum* c,
                 std::int64_t c_stride, bool upper) {
    simd::products<T, Sum>::add(m, n, k, factor, {a, a_row_stride, a_col_stride}, {b, b_row_stride, b_col_stride}, c,
                                c_stride, upper ? simd::part::upper : simd::part::all);
}

} // namespace

extern "C" {
extern compiled::unit const DETENT_UNIT_SYMBOL;
compiled::unit const DETENT_UNIT_SYMBOL{
    compiled::layout_of_headers(), DETENT_TEXT(DETENT_UNIT), multiply, multiply_codes, multiply_transposed,
    {compiled::dense_products::newest, add_product<float, float>, add_product<double, double>,
     add_product<float, double>}};
}

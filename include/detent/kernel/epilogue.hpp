// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>

#include "detent/core/index.hpp"
#include "detent/kernel/floats.hpp"
#include "detent/matrix/epilogue.hpp"

namespace detent::inline DETENT_ABI::kernel {

/// x Phi(x) with the normal distribution function Phi, by the fit of the complementary error function of Press et al.,
/// Numerical Recipes, 6.2.2, as `nn::gelu`: its relative error is 1.2e-7 in each tail.
inline floats gelu(floats x) noexcept {
    floats const z = xsimd::abs(x) * floats(0.70710678F);
    floats const t = floats(1.0F) / xsimd::fma(floats(0.5F), z, floats(1.0F));
    floats p = xsimd::fma(floats(0.17087277F), t, floats(-0.82215223F));
    for (float const c :
         {1.48851587F, -1.13520398F, 0.27886807F, -0.18628806F, 0.09678418F, 0.37409196F, 1.00002368F, -1.26551223F}) {
        p = xsimd::fma(p, t, floats(c));
    }
    p = floats(0.5F) * t * xsimd::exp(p - z * z);
    return x * xsimd::select(x > floats(0.0F), floats(1.0F) - p, p);
}

/// The function of an epilogue.
inline floats apply(epilogue_function f, floats x) noexcept {
    switch (f) {
    case epilogue_function::silu:
        return x / (floats(1.0F) + xsimd::exp(floats(0.0F) - x));
    case epilogue_function::gelu:
        return gelu(x);
    case epilogue_function::gelu_tanh: // (1 + tanh(u)) / 2 = 1 / (1 + exp(-2 u))
        return x / (floats(1.0F) +
                    xsimd::exp(floats(-1.5957691F) * x * xsimd::fma(x * x, floats(0.044715F), floats(1.0F))));
    case epilogue_function::relu: // and what is not a number stays so
        return xsimd::select(x < floats(0.0F), floats(0.0F), x);
    case epilogue_function::none:
        break;
    }
    return x;
}

/// y = after(sums) for outputs [first, last) of one token; all pointers are to output 0. `y` may be `sums`. A number's
/// bits do not depend on where it lies.
inline void finish(epilogue const& after, index_t token, index_t first, index_t last, float const* sums,
                   float* y) noexcept {
    float const* const times = after.times != nullptr ? after.times + token * after.times_stride : nullptr;
    float const* const plus = after.plus != nullptr ? after.plus + token * after.plus_stride : nullptr;
    auto const finished = [&](floats v, auto const& load) {
        if (after.bias != nullptr) {
            v = v + load(after.bias);
        }
        v = apply(after.function, v);
        if (times != nullptr) {
            v = v * load(times);
        }
        return plus != nullptr ? v + load(plus) : v;
    };
    index_t i = first;
    for (; i + lanes <= last; i += lanes) {
        auto const load = [i](float const* from) { return floats::load_unaligned(from + i); };
        finished(load(sums), load).store_unaligned(y + i);
    }
    if (i < last) { // by the same instructions
        alignas(64) float rest[lanes];
        auto const load = [i, last](float const* from) {
            alignas(64) float numbers[lanes] = {};
            std::copy(from + i, from + last, numbers);
            return floats::load_aligned(numbers);
        };
        finished(load(sums), load).store_aligned(rest);
        std::copy(rest, rest + (last - i), y + i);
    }
}

} // namespace detent::inline DETENT_ABI::kernel

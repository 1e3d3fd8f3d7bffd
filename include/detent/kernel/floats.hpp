// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <xsimd/xsimd.hpp>

#include "detent/core/index.hpp"

namespace detent::inline DETENT_ABI::kernel {

/// A register of floats.
using floats = xsimd::batch<float>;
/// How many it holds.
inline constexpr auto lanes = static_cast<index_t>(floats::size);

/// The sum of all lanes.
inline float sum(floats v) noexcept {
#if XSIMD_VERSION_MAJOR >= 9
    return xsimd::reduce_add(v);
#else
    return xsimd::hadd(v);
#endif
}

} // namespace detent::inline DETENT_ABI::kernel

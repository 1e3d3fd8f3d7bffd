// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <string_view>

#include "detent/matrix/kv_store.hpp"

namespace detent::inline DETENT_ABI {

/// The format of a cache by its name: `float`, `f16`, `bf16`, or a grid as specifications name it, `int8`, `int4`,
/// `fp8`, `nf4`, ..., where it is wanted followed by `:g` and the channels of a head that share a scale, 0 for the
/// whole head. Without, grids of up to 4 bits have groups of 16, others one for the head; and their keys are centered.
/// @throws error when there is no such format.
kv_format find_kv_format(std::string_view name);

} // namespace detent::inline DETENT_ABI

#if !defined(DETENT_COMPILED)
#include "detent/quantizer/find_kv_format.ipp" // IWYU pragma: export
#endif

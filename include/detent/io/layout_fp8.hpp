// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include "detent/core/needs_exceptions.hpp"
#include "detent/io/layout.hpp"

namespace detent::inline DETENT_ABI::io {

/// E4M3 with scales of blocks of weights, as DeepSeek and Qwen publish theirs, or with one scale. Only read.
checkpoint_layout const& fp8_layout();

} // namespace detent::inline DETENT_ABI::io

#if !defined(DETENT_COMPILED)
#include "detent/io/layout_fp8.ipp" // IWYU pragma: export
#endif

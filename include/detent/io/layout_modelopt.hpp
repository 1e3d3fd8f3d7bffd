// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include "detent/core/needs_exceptions.hpp"
#include "detent/io/layout.hpp"

namespace detent::inline DETENT_ABI::io {

/// What NVIDIA's ModelOpt writes: FP8 with one scale, and NVFP4. Only read.
checkpoint_layout const& modelopt_layout();

} // namespace detent::inline DETENT_ABI::io

#if !defined(DETENT_COMPILED)
#include "detent/io/layout_modelopt.ipp" // IWYU pragma: export
#endif

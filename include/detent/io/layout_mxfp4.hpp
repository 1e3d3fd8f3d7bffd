// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include "detent/core/needs_exceptions.hpp"
#include "detent/io/layout.hpp"

namespace detent::inline DETENT_ABI::io {

/// MXFP4 in tensors of all experts, as gpt-oss is published. Only read.
checkpoint_layout const& mxfp4_layout();

} // namespace detent::inline DETENT_ABI::io

#if !defined(DETENT_COMPILED)
#include "detent/io/layout_mxfp4.ipp" // IWYU pragma: export
#endif

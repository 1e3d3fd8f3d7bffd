// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstdio>
#include <cstdlib>

#include "detent/core/abi.hpp"

/// Checks what other parts of the library promised, and what callers promise of the positions of single elements.
/// Debug builds stop with the condition and its place, release builds (`NDEBUG`) check nothing; `DETENT_CHECKS=1` or
/// `=0` decides otherwise. Data, options and shapes that callers give raise `detent::error` instead, in all builds
/// (`expect_valid`, `expect_option`).
#if DETENT_ABI_CHECKS == 0
#define DETENT_EXPECTS(condition) static_cast<void>(0)
#else
#define DETENT_EXPECTS(condition)                                                                                      \
    ((condition) ? static_cast<void>(0)                                                                                \
                 : (static_cast<void>(std::fprintf(stderr, "%s:%d: expected %s\n", __FILE__, __LINE__, #condition)),   \
                    std::abort()))
#endif

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstdio>
#include <cstdlib>

#include "detent/core/abi.hpp"

/// Checks what the caller promised. A failed promise is a programming error: debug builds stop with the condition and
/// its place, release builds (`NDEBUG`) check nothing; `DETENT_CHECKS=1` or `=0` decides otherwise. Errors in data
/// throw `detent::error` instead.
#if DETENT_ABI_CHECKS == 0
#define DETENT_EXPECTS(condition) static_cast<void>(0)
#else
#define DETENT_EXPECTS(condition)                                                                                      \
    ((condition) ? static_cast<void>(0)                                                                                \
                 : (static_cast<void>(std::fprintf(stderr, "%s:%d: expected %s\n", __FILE__, __LINE__, #condition)),   \
                    std::abort()))
#endif

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include "detent/core/needs_exceptions.hpp"
#include "detent/quantizer/spec.hpp"

// With this header, `spec::parse` is defined.

#if !defined(DETENT_COMPILED)
#include "detent/quantizer/parse_spec.ipp" // IWYU pragma: export
#endif

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <string>

#include "detent/core/needs_exceptions.hpp"
#include "detent/model/configuration.hpp"
#include "detent/model/save_gguf.hpp"
#include "detent/quantizer/spec.hpp"

namespace detent::inline DETENT_ABI {

/// Why a model of configuration `c` could not be saved if it were quantized as `s` says; empty where it could. The
/// weights are not needed.
std::string gguf_obstacle(model_configuration const& c, spec const& s);

} // namespace detent::inline DETENT_ABI

#if !defined(DETENT_COMPILED)
#include "detent/model/plan_gguf.ipp" // IWYU pragma: export
#endif

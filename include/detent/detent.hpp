// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

/// The whole static API: everything but files, models and the run-time catalogue.

// IWYU pragma: begin_exports
#include "detent/core/buffer.hpp"
#include "detent/core/contract.hpp"
#include "detent/core/eigen.hpp"
#include "detent/core/error.hpp"
#include "detent/core/executor.hpp"
#include "detent/core/function_ref.hpp"
#include "detent/core/half.hpp"
#include "detent/core/index.hpp"
#include "detent/core/progress.hpp"
#include "detent/core/version.hpp"
// IWYU pragma: end_exports

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
#include "detent/granularity/granularity.hpp"
#include "detent/grid/codebook_grid.hpp"
#include "detent/grid/fp_grid.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/matrix/dequantize.hpp"
#include "detent/matrix/input_format.hpp"
#include "detent/matrix/quantized_matrix.hpp"
#include "detent/matrix/weak_columns.hpp"
#include "detent/quantizer/activations.hpp"
#include "detent/quantizer/product.hpp"
#include "detent/quantizer/quantizer.hpp"
#include "detent/quantizer/stored_matrix.hpp"
#include "detent/quantizer/typed_product.hpp"
#include "detent/scale/absmax.hpp"
#include "detent/scale/default_range.hpp"
#include "detent/scale/least_squares.hpp"
#include "detent/scale/minmax.hpp"
#include "detent/scale/mse.hpp"
#include "detent/scale/truncated.hpp"
#include "detent/solver/asymmetric.hpp"
#include "detent/solver/gptq.hpp"
#include "detent/solver/obq.hpp"
#include "detent/solver/owq.hpp"
#include "detent/solver/rtn.hpp"
// IWYU pragma: end_exports

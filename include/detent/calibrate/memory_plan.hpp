// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstdint>

#include "detent/calibrate/quantize_decoder.hpp"
#include "detent/core/needs_exceptions.hpp"
#include "detent/model/decoder.hpp"
#include "detent/quantizer/spec.hpp"

namespace detent::inline DETENT_ABI {

/// The bytes of memory that quantizing a model block by block takes at most, whatever its number of blocks, without the
/// activations of all windows, which can be in files.
struct memory_plan {
    std::uint64_t program = 0; ///< code, tables and what memory is lost between the others
    std::uint64_t ends = 0;    ///< what is of no block, such as embeddings, as floats
    std::uint64_t block = 0;   ///< the largest block: as floats, as often as solvers need it, and packed
    std::uint64_t solver = 0;  ///< the largest layer's Hessian, its factor and copies of its weights
    std::uint64_t batch = 0;   ///< activations inside a block, of the windows that are run at once

    /// The smallest budget that is enough.
    std::uint64_t least() const { return program + ends + block + solver + batch; }
};

/// That of a model as `outline_decoder` makes it. @throws error when `s` is impossible.
memory_plan plan_memory(decoder const& outline, spec const& s, calibration const& text);

/// The bytes of the activations of all windows, which are in memory where a budget has room for them.
std::uint64_t activation_bytes(decoder const& outline, spec const& s, calibration const& text);

} // namespace detent::inline DETENT_ABI

#if !defined(DETENT_COMPILED)
#include "detent/calibrate/memory_plan.ipp" // IWYU pragma: export
#endif

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include "detent/core/needs_exceptions.hpp"
#include "detent/io/layout.hpp"
#include "detent/io/tensor_reader.hpp"
#include "detent/matrix/packed_matrix.hpp"

namespace detent::inline DETENT_ABI::io {

/// What files of GPTQ say of a layer beside its tensors.
struct gptq_form {
    /// Of groups of inputs where there is no `g_idx`: 0 for all inputs, -1 for what the number of scales says.
    index_t width = -1;
    bool zeros_minus_one = true; ///< stored zero points are less by one, as in v1
};

/// Why GPTQ's layout cannot hold `w`; empty when it can.
std::string gptq_obstacle(packed_matrix const& w);

/// Adds the tensors of layer `name`, in v1 if `zeros_minus_one`. `w` has no `gptq_obstacle`, and in v1 no zero point
/// is 0, which readers understand in different ways.
void add_gptq(safetensors_writer& file, std::string const& name, packed_matrix const& w, bool zeros_minus_one = false);

/// Reads layer `name`.
packed_matrix read_gptq(tensor_reader const& tensors, std::string const& name, extents shape, gptq_form form);

/// The bits of the codes of a `qweight`, from its shape.
int bits_of_words(tensor_reader const& tensors, std::string const& name, extents shape);

/// The error that the `qweight` of layer `name` has a shape that does not go with the weights.
error does_not_hold(tensor_reader const& tensors, std::string const& name, extents shape);

/// The codes of a `qweight` as a `packed_matrix` has them, inputs in their natural order.
buffer linear_of_words(int bits, extents shape, std::span<std::uint8_t const> words);

/// GPTQ's layout: v1 where no zero point is 0, which every program reads, else v2.
checkpoint_layout const& gptq_layout();

} // namespace detent::inline DETENT_ABI::io

#if !defined(DETENT_COMPILED)
#include "detent/io/layout_gptq.ipp" // IWYU pragma: export
#endif

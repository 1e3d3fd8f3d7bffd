// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <optional>
#include <string>
#include <variant>

#include "detent/core/eigen.hpp"
#include "detent/core/executor.hpp"
#include "detent/matrix/activation_quantizer.hpp"
#include "detent/matrix/packed_matrix.hpp"

namespace detent::inline DETENT_ABI {

/// Where the rows of a layer are in a tensor of a checkpoint that holds those of several: runs of `run` rows, `stride`
/// apart, from row `first` on.
struct stored_rows {
    std::string tensor =
        {}; ///< name of the weight's without `.weight`, or of a tensor of all experts; the bias is beside it
    std::string dot = "."; ///< before `weight` and `bias`; PyTorch's attention has a `_` there
    index_t rows = 0;      ///< that the tensor has
    index_t first = 0;
    index_t run = 1;
    index_t stride = 1;
    index_t experts = 0; ///< in a tensor (expert, ...) of so many; 0 where it is a matrix
    index_t expert = 0;  ///< which of them

    /// Where row `i` of the layer is.
    index_t row(index_t i) const { return first + i / run * stride + i % run; }

    /// The names of the tensors; those of all experts are no modules, and so without `.weight`.
    std::string weight_name() const { return tensor + (experts > 0 ? "" : dot + "weight"); }
    std::string bias_name() const { return tensor + (experts > 0 ? "_" : dot) + "bias"; }

    friend bool operator==(stored_rows const&, stored_rows const&) = default;
};

/// A named linear map y = x W^T + bias, its weight float or quantized, its input too or not.
struct linear_layer {
    using scalar = float;

    std::string name = {};                           ///< of the module in the checkpoint, without `.weight`
    std::variant<matrix, packed_matrix> weight = {}; ///< (out, in)
    float_vector bias = {};                          ///< one entry per output, or none
    /// Rounds what the layer reads, mapped where a packed weight maps it; none where that stays as it is.
    std::optional<activation_quantizer> input = {};
    std::optional<stored_rows> stored = {}; ///< where the checkpoint has no tensor of its name
    bool transposed = false;                ///< the checkpoint stores the weight as (in, out)

    /// (out, in).
    extents shape() const;

    /// Row `i` of the weight (in).
    Eigen::RowVectorXf weight_row(index_t i) const;

    /// (token, in) to (token, out). Where the input is quantized, a packed weight meets its codes.
    matrix forward(matrix_view x, executor_ref executor = {}) const;

    /// The gradient with respect to the input, (token, in), given that with respect to the result, (token, out).
    matrix input_gradient(matrix_view g, executor_ref executor = {}) const;

private:
    matrix forward_quantized(matrix_view x, executor_ref executor) const;

    matrix forward_packed(matrix_view x, executor_ref executor) const;
};

} // namespace detent::inline DETENT_ABI

#if !defined(DETENT_COMPILED)
#include "detent/model/linear_layer.ipp" // IWYU pragma: export
#endif

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <string>

#include "detent/core/eigen.hpp"
#include "detent/core/executor.hpp"
#include "detent/nn/norm.hpp"

namespace detent::inline DETENT_ABI {

/// A named normalization of each token's features.
struct norm_layer {
    enum class kind { rms, layer };

    std::string name; ///< of the module in the checkpoint, without `.weight`
    kind type = kind::rms;
    float_vector weight; ///< one entry per feature
    float_vector bias;   ///< one entry per feature, or none; unused by RMSNorm
    float eps = 1e-5F;

    /// (token, feature) to (token, feature).
    matrix forward(matrix_view x, executor_ref executor = {}) const {
        return type == kind::rms ? nn::rms_norm(x, weight, eps, executor)
                                 : nn::layer_norm(x, weight, bias, eps, executor);
    }

    /// The gradient with respect to the input x given that with respect to the result, g; all are (token, feature).
    matrix input_gradient(matrix_view x, matrix_view g, executor_ref executor = {}) const {
        return type == kind::rms ? nn::rms_norm_backward(x, weight, eps, g, nullptr, executor)
                                 : nn::layer_norm_backward(x, weight, eps, g, nullptr, nullptr, executor);
    }
};

} // namespace detent::inline DETENT_ABI

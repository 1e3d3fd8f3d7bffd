// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <string>

#include "detent/core/eigen.hpp"
#include "detent/core/executor.hpp"
#include "detent/nn/norm.hpp"

namespace detent::inline DETENT_ABI {

/// Which mean a norm divides by: RMSNorm the root of the mean square, LayerNorm the deviation, after the mean is taken
/// away.
enum class norm_kind { rms, layer };

/// A named normalization of each token's features, or of those of each of its heads.
template <class Scalar> struct basic_norm_layer {
    using kind = norm_kind;

    std::string name; ///< of the module in the checkpoint, without `.weight`
    norm_kind type = norm_kind::rms;
    basic_vector<Scalar> weight; ///< one entry per feature; one for each of a head where all heads share them
    basic_vector<Scalar> bias;   ///< likewise, or none
    Scalar eps = Scalar(1e-5);
    index_t width = 0; ///< features that are normalized together, those of a head; 0 for all

    /// (token, feature) to (token, feature).
    basic_matrix<Scalar> forward(basic_matrix_view<Scalar> x, executor_ref executor = {}) const {
        return type == norm_kind::rms ? nn::rms_norm(x, weight, eps, executor, width)
                                      : nn::layer_norm(x, weight, bias, eps, executor, width);
    }

    /// The gradient with respect to the input x given that with respect to the result, g; all are (token, feature).
    /// Those with respect to weight and bias are added to `gradient`, where that is given.
    basic_matrix<Scalar> input_gradient(basic_matrix_view<Scalar> x, basic_matrix_view<Scalar> g,
                                        executor_ref executor = {}, basic_norm_layer* gradient = nullptr) const {
        auto* const weights = gradient != nullptr ? &gradient->weight : nullptr;
        return type == norm_kind::rms
                   ? nn::rms_norm_backward(x, weight, eps, g, weights, executor, width)
                   : nn::layer_norm_backward(x, weight, eps, g, weights,
                                             gradient != nullptr && bias.size() > 0 ? &gradient->bias : nullptr,
                                             executor, width);
    }

    /// A gradient with respect to it before anything is added.
    basic_norm_layer zeros() const {
        basic_norm_layer z = *this;
        z.weight.setZero();
        z.bias.setZero();
        return z;
    }
};

/// A norm of a model that runs.
using norm_layer = basic_norm_layer<float>;

} // namespace detent::inline DETENT_ABI

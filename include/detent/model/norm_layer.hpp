// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <string>

#include "detent/core/eigen.hpp"
#include "detent/core/executor.hpp"
#include "detent/nn/norm.hpp"

namespace detent::inline DETENT_ABI {

/// A named normalization of each token's features, or of those of each of its heads.
template <class Scalar> struct basic_norm_layer {
    using kind = nn::norm_kind;

    std::string name = {}; ///< of the module in the checkpoint, without `.weight`
    kind type = kind::rms;
    basic_vector<Scalar> weight = {}; ///< one entry per feature; one for each of a head where all heads share them
    basic_vector<Scalar> bias = {};   ///< likewise, or none; of LayerNorm only
    Scalar eps = Scalar(1e-5);
    index_t width = 0; ///< features that are normalized together, those of a head; 0 for all

    /// (token, feature) to (token, feature).
    basic_matrix<Scalar> forward(basic_matrix_view<Scalar> x, executor_ref executor = {}) const {
        if (width > 0) {
            return nn::head_norm(type, x, width, weight, bias, eps, executor);
        }
        return type == kind::rms     ? nn::rms_norm(x, weight, eps, executor)
               : type == kind::layer ? nn::layer_norm(x, weight, bias, eps, executor)
                                     : nn::scale_features(x, weight, executor);
    }

    /// The gradient with respect to the input x given that with respect to the result, g; all are (token, feature).
    /// Those with respect to weight and bias are added to `gradient`, where that is given.
    basic_matrix<Scalar> input_gradient(basic_matrix_view<Scalar> x, basic_matrix_view<Scalar> g,
                                        executor_ref executor = {}, basic_norm_layer* gradient = nullptr) const {
        auto* const weights = gradient != nullptr ? &gradient->weight : nullptr;
        auto* const biases = gradient != nullptr && bias.size() > 0 ? &gradient->bias : nullptr;
        if (width > 0) {
            return nn::head_norm_backward(type, x, width, weight, eps, g, weights, biases, executor);
        }
        return type == kind::rms     ? nn::rms_norm_backward(x, weight, eps, g, weights, executor)
               : type == kind::layer ? nn::layer_norm_backward(x, weight, eps, g, weights, biases, executor)
                                     : nn::scale_features_backward(x, weight, g, weights, executor);
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

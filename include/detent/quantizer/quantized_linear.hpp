// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <utility>

#include "detent/matrix/activation_quantizer.hpp"
#include "detent/matrix/product_shapes.hpp"
#include "detent/matrix/quantized_matrix.hpp"
#include "detent/quantizer/typed_product.hpp"

namespace detent::inline DETENT_ABI {

/// A linear map whose weights are packed and whose inputs are rounded: y = x' W'^T, where x' are the inputs mapped and
/// rounded. On integers where both grids allow it.
template <GridOrChoice G, Granularity P> class quantized_linear {
public:
    quantized_linear(quantized_matrix<G, P> weights, activation_quantizer input)
        : weights_(std::move(weights)), input_(std::move(input)) {}

    quantized_matrix<G, P> const& weights() const& { return weights_; }
    quantized_matrix<G, P>&& weights() && { return std::move(weights_); }
    /// How mapped inputs are rounded.
    activation_quantizer const& input() const { return input_; }
    extents shape() const { return weights_.shape(); }

    /// y (token, out) for inputs x (token, in): maps them, rounds them and multiplies. @throws error when a number of
    /// `x` is not finite, or there are not as many features as the weights have.
    matrix operator()(matrix_view x, executor_ref executor = {}) const {
        expect_features_of(shape(), x.cols()); // before memory is asked for
        matrix y(x.rows(), shape().rows);      // (token, out)
        multiply(weights_, input_, x, y, executor);
        return y;
    }

    /// y = after(x' W'^T) into memory of the caller: with a workspace, a call like an earlier one allocates nothing.
    /// @throws error as the other.
    void operator()(matrix_view x, matrix_ref y, executor_ref executor = {}, epilogue const& after = {}) const {
        multiply(weights_, input_, x, y, after, executor);
    }

private:
    quantized_matrix<G, P> weights_;
    activation_quantizer input_;
};

} // namespace detent::inline DETENT_ABI

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstdint>
#include <cstring>

#include "detent/core/buffer.hpp"
#include "detent/core/eigen.hpp"
#include "detent/core/executor.hpp"
#include "detent/core/half.hpp"
#include "detent/core/index.hpp"
#include "detent/kernel/dense.hpp"
#include "detent/matrix/epilogue.hpp"
#include "detent/matrix/product_shapes.hpp"

namespace detent::inline DETENT_ABI {

/// A dense matrix (out, in) whose numbers are stored as f16, bf16 or f32: the baseline that quantized ones are compared
/// with. Numbers are rounded to nearest, ties to even.
class stored_matrix {
public:
    stored_matrix(matrix_view w, float_format format)
        : numbers_(w.size() * bits_of(format) / 8), format_(format), shape_(shape_of(w)) {
        std::uint8_t* to = numbers_.data();
        auto const put = [&](auto number) {
            std::memcpy(to, &number, sizeof number);
            to += sizeof number;
        };
        for (index_t r = 0; r < w.rows(); ++r) {
            for (index_t c = 0; c < w.cols(); ++c) {
                switch (format) {
                case float_format::f16:
                    put(half(w(r, c)));
                    break;
                case float_format::bf16:
                    put(bfloat16(w(r, c)));
                    break;
                case float_format::f32:
                    put(w(r, c));
                }
            }
        }
    }

    extents shape() const { return shape_; }
    float_format format() const { return format_; }
    /// The numbers as they are stored.
    matrix numbers() const {
        matrix w(shape_.rows, shape_.cols);
        for (index_t i = 0; i < w.size(); ++i) {
            std::uint8_t const* const from = numbers_.data();
            w.data()[i] = format_ == float_format::f16    ? kernel::weak_number<float_format::f16>(from, i)
                          : format_ == float_format::bf16 ? kernel::weak_number<float_format::bf16>(from, i)
                                                          : kernel::weak_number<float_format::f32>(from, i);
        }
        return w;
    }

    kernel::dense_view view() const { return {numbers_.data(), format_, shape_}; }

private:
    buffer numbers_;
    float_format format_;
    extents shape_;
};

/// y = after(x W^T): x (token, in), y (token, out). Sums are those of floats. @throws error when shapes do not fit.
template <class Scalar = float>
void multiply(stored_matrix const& w, matrix_view x, matrix_ref y, epilogue const& after, executor_ref executor = {}) {
    expect_product(w.shape(), shape_of(x), shape_of(y));
    kernel::multiply_dense(w.view(), x.data(), x.outerStride(), x.rows(), y.data(), y.outerStride(), after, executor);
}

/// y = x W^T, as the other.
template <class Scalar = float>
void multiply(stored_matrix const& w, matrix_view x, matrix_ref y, executor_ref executor = {}) {
    multiply<Scalar>(w, x, y, epilogue{}, executor);
}

} // namespace detent::inline DETENT_ABI

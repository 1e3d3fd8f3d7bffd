// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cmath>

#include "detent/core/eigen.hpp"
#include "detent/core/error.hpp"
#include "detent/core/executor.hpp"
#include "detent/nn/tokens.hpp"

namespace detent::inline DETENT_ABI::nn {

/// Rotary position embedding (Su et al., RoFormer, eq. 34): in each head, feature pair i is rotated by the angle
/// position * theta^(-2 i / head_dim). Pairs are (i, i + head_dim / 2), the order of Hugging Face checkpoints.
class rope_table {
public:
    /// Sines and cosines for positions 0 .. max_positions - 1. @throws error when `head_dim` is not positive and even.
    rope_table(index_t head_dim, double theta, index_t max_positions)
        : cos_(max_positions, half_of(head_dim)), sin_(max_positions, half_of(head_dim)) {
        for (index_t i = 0; i < head_dim / 2; ++i) {
            double const frequency = std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(head_dim));
            for (index_t position = 0; position < max_positions; ++position) {
                cos_(position, i) = static_cast<float>(std::cos(static_cast<double>(position) * frequency));
                sin_(position, i) = static_cast<float>(std::sin(static_cast<double>(position) * frequency));
            }
        }
    }

    index_t head_dim() const { return 2 * cos_.cols(); }
    index_t max_positions() const { return cos_.rows(); }

    /// Rotates queries or keys in place; `x` is (token, head * head_dim), its rows are the tokens that `rows` says.
    template <class X> void apply(X&& x, token_rows rows, executor_ref executor = {}) const {
        rotate<false, scalar_of<X>>(x, rows, executor);
    }

    /// Rotates back by the same angles. That is the transposed rotation, which turns the gradient with respect to what
    /// `apply` made into that with respect to what it was given.
    template <class X> void apply_transposed(X&& x, token_rows rows, executor_ref executor = {}) const {
        rotate<true, scalar_of<X>>(x, rows, executor);
    }

private:
    static index_t half_of(index_t head_dim) {
        expect_option(head_dim > 0 && head_dim % 2 == 0, "rope", "dimension of heads", head_dim, "positive and even");
        return head_dim / 2;
    }

    template <bool back, class Scalar>
    void rotate(basic_matrix_ref<Scalar> x, token_rows rows, executor_ref executor) const {
        index_t const length = rows.length(x.rows());
        index_t const half = cos_.cols();
        expect_valid(x.cols() % head_dim() == 0, "rope", "has features that are not of whole heads");
        expect_valid(rows.start >= 0 && rows.start + length <= max_positions(), "rope", "has no such positions");
        executor.for_pieces(x.rows(), rows_per_piece, [&](index_t begin, index_t end) {
            for (index_t t = begin; t < end; ++t) {
                float const* c = cos_.row(rows.start + t % length).data();
                float const* s = sin_.row(rows.start + t % length).data();
                for (Scalar* head = x.row(t).data(); head != x.row(t).data() + x.cols(); head += 2 * half) {
                    for (index_t i = 0; i < half; ++i) {
                        Scalar const x1 = head[i];
                        Scalar const x2 = head[i + half];
                        Scalar const sine = back ? -s[i] : s[i];
                        head[i] = x1 * c[i] - x2 * sine;
                        head[i + half] = x2 * c[i] + x1 * sine;
                    }
                }
            }
        });
    }

    matrix cos_; // (position, pair)
    matrix sin_; // (position, pair)
};

} // namespace detent::inline DETENT_ABI::nn

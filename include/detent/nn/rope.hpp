// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cmath>
#include <cstddef>
#include <utility>
#include <vector>

#include "detent/core/contract.hpp"
#include "detent/core/eigen.hpp"
#include "detent/core/executor.hpp"
#include "detent/nn/tokens.hpp"

namespace detent::inline DETENT_ABI::nn {

/// Sines and cosines of consecutive positions, and the rotation of queries and keys by them; made by `rotary::at`.
class rotation {
public:
    /// For positions `start` .. `start + length - 1`; see `rotary`.
    rotation(std::vector<double> const& frequencies, bool interleaved, double factor, index_t start, index_t length)
        : cos_(length, static_cast<index_t>(frequencies.size())), sin_(cos_.rows(), cos_.cols()), start_(start),
          interleaved_(interleaved) {
        DETENT_EXPECTS(start >= 0);
        for (index_t i = 0; i < cos_.cols(); ++i) {
            double const frequency = frequencies[static_cast<std::size_t>(i)];
            for (index_t t = 0; t < length; ++t) {
                double const angle = static_cast<double>(start + t) * frequency;
                cos_(t, i) = static_cast<float>(factor * std::cos(angle));
                sin_(t, i) = static_cast<float>(factor * std::sin(angle));
            }
        }
    }

    /// Whether positions `start` .. `start + length - 1` are there.
    bool contains(index_t start, index_t length) const {
        return start >= start_ && start + length <= start_ + cos_.rows();
    }

    /// Features of each head that are rotated.
    index_t dimensions() const { return 2 * cos_.cols(); }

    /// Rotates queries or keys in place; `x` is (token, head * head_dim), its rows are the tokens that `rows` says, all
    /// at positions of this rotation. Of each head the first `dimensions()` features change.
    template <class X> void apply(X&& x, index_t head_dim, token_rows rows, executor_ref executor = {}) const {
        rotate<false, scalar_of<X>>(x, head_dim, rows, executor);
    }

    /// Applies the transposed map, the rotation back by the same angles times the same factor: it turns the gradient
    /// with respect to what `apply` made into that with respect to what it was given.
    template <class X>
    void apply_transposed(X&& x, index_t head_dim, token_rows rows, executor_ref executor = {}) const {
        rotate<true, scalar_of<X>>(x, head_dim, rows, executor);
    }

private:
    template <bool back, class Scalar>
    void rotate(basic_matrix_ref<Scalar> x, index_t head_dim, token_rows rows, executor_ref executor) const {
        index_t const length = rows.length(x.rows());
        index_t const first = rows.start - start_; // row of the first token's sines
        DETENT_EXPECTS(dimensions() <= head_dim && x.cols() % head_dim == 0);
        DETENT_EXPECTS(length == 0 || contains(rows.start, length));
        executor.for_pieces(x.rows(), rows_per_piece, [&](index_t begin, index_t end) {
            for (index_t t = begin; t < end; ++t) {
                float const* const c = cos_.row(first + t % length).data();
                float const* const s = sin_.row(first + t % length).data();
                for (Scalar* head = x.row(t).data(); head != x.row(t).data() + x.cols(); head += head_dim) {
                    if (interleaved_) {
                        rotate_pairs<back>(head, head + 1, 2, c, s);
                    } else {
                        rotate_pairs<back>(head, head + cos_.cols(), 1, c, s);
                    }
                }
            }
        });
    }

    /// Rotates the pairs of one head, whose first and second halves begin at `x` and `y`, `stride` numbers apart.
    template <bool back, class Scalar>
    void rotate_pairs(Scalar* x, Scalar* y, index_t stride, float const* c, float const* s) const {
        for (index_t i = 0; i < cos_.cols(); ++i, x += stride, y += stride) {
            Scalar const x1 = *x;
            Scalar const x2 = *y;
            Scalar const sine = back ? -s[i] : s[i];
            *x = x1 * c[i] - x2 * sine;
            *y = x2 * c[i] + x1 * sine;
        }
    }

    matrix cos_; // (position, pair), times the factor
    matrix sin_; // (position, pair), times the factor
    index_t start_;
    bool interleaved_;
};

/// Rotary positions: which pairs of features of a head are rotated, and how fast (Su et al., RoFormer, eq. 34).
class rotary {
public:
    /// Pair i is rotated by `frequencies[i]` radians a position. Of n pairs each is (2 i, 2 i + 1) where they are
    /// `interleaved`, as in GPT-J and Cohere, else (i, i + n), the order of most Hugging Face checkpoints. Sines and
    /// cosines are multiplied by `factor` (YaRN, section 3.4; LongRoPE).
    explicit rotary(std::vector<double> frequencies, bool interleaved = false, double factor = 1)
        : frequencies_(std::move(frequencies)), factor_(factor), interleaved_(interleaved) {}

    std::vector<double> const& frequencies() const { return frequencies_; }
    double factor() const { return factor_; }
    bool interleaved() const { return interleaved_; }

    /// Features of each head that are rotated, two for each pair; the rest of a head passes as it is.
    index_t dimensions() const { return 2 * static_cast<index_t>(frequencies_.size()); }

    /// The rotations of positions `start` .. `start + length - 1`.
    rotation at(index_t start, index_t length) const { return {frequencies_, interleaved_, factor_, start, length}; }

    friend bool operator==(rotary const&, rotary const&) = default;

private:
    std::vector<double> frequencies_; // one per pair
    double factor_;
    bool interleaved_;
};

} // namespace detent::inline DETENT_ABI::nn

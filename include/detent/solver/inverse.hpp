// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cmath>

#include "detent/core/contract.hpp"
#include "detent/core/eigen.hpp"
#include "detent/core/executor.hpp"
#include "detent/nn/products.hpp"
#include "detent/nn/triangular.hpp"

namespace detent::inline DETENT_ABI {

/// The lower triangle of (R R^T)^-1 = R^-T R^-1 for an upper triangular `r` (in, in); what lies above is 0.
template <class Scalar>
basic_matrix<Scalar> inverse_from_factor(basic_matrix<Scalar> const& r, executor_ref executor = {}) {
    index_t const n = r.rows();
    constexpr index_t panel = 64;                               // rows of R^-1, then of the result, that one task owns
    basic_matrix<Scalar> inverse_r = zero_matrix<Scalar>(n, n); // (in, in), upper triangular
    executor.for_pieces(n, panel, [&](index_t begin, index_t end) {
        for (index_t row = begin; row < end; ++row) {
            inverse_r(row, row) = 1;
        }
        nn::divide_by_upper(end - begin, n - begin, &inverse_r(begin, begin), n, &r(begin, begin), n);
    });
    basic_matrix<Scalar> inverse = zero_matrix<Scalar>(n, n); // (in, in), lower triangle
    executor.for_pieces(n, panel, [&](index_t begin, index_t end) {
        nn::products<Scalar>::add(end - begin, end, end, 1,
                                  simd::strided<Scalar>{inverse_r.data() + begin, n}.transpose(), {inverse_r.data(), n},
                                  &inverse(begin, 0), n);
        for (index_t row = begin; row < end; ++row) {
            std::fill_n(inverse.data() + row * n + row + 1, end - row - 1, Scalar{0});
        }
    });
    return inverse;
}

/// G = (H_FF)^-1 for a set F of coordinates that shrinks by one at a time. Removing j from H is a step of elimination
/// in G (Optimal Brain Compression, lemma 1): G - u u^T with u = G_j / sqrt(G_jj).
///
/// The last coordinate takes the place of the one removed, so that G stays dense. Steps are gathered and applied to its
/// lower triangle many at a time, as one matrix product: in^3/3 flops until F is empty. Until then a column is brought
/// up to date when it is asked for, and the diagonal always is.
template <class Scalar = double> class basic_shrinking_inverse {
public:
    /// A step of elimination, a column.
    using step = Eigen::Map<basic_vector<Scalar> const>;

    /// Room for `n` coordinates and `delay` gathered steps: n^2 + delay n numbers.
    basic_shrinking_inverse(index_t n, index_t delay)
        // Rows a power of two apart would compete for the same few lines of a cache.
        : stride_(ceil_div(n, index_t{8}) * 8 + 8), g_(n, stride_), steps_(delay, stride_), at_j_(delay) {
        DETENT_EXPECTS(delay > 0);
    }

    /// Starts again with all coordinates. `inverse` is H^-1 (in, in), of which the lower triangle is read, and `least`
    /// has 1 / H_jj, which bounds G_jj from below for every F: a bound that rounding errors are held to.
    void reset(basic_matrix<Scalar> const& inverse, basic_vector<Scalar> const& least) {
        size_ = inverse.rows();
        gathered_ = 0;
        for (index_t i = 0; i < size_; ++i) {
            g_.row(i).head(i + 1) = inverse.row(i).head(i + 1);
        }
        diagonal_ = inverse.diagonal();
        least_ = least;
    }

    /// The number of coordinates left.
    index_t size() const { return size_; }

    /// G_ii of the coordinates left, in `size()` places.
    auto diagonal() const { return diagonal_.head(size_); }

    /// Removes the coordinate at place `j`; the last one moves there. Returns u of those left, in their new places,
    /// valid until the next call.
    step remove(index_t j) {
        DETENT_EXPECTS(j >= 0 && j < size_);
        if (gathered_ == steps_.rows()) {
            apply();
        }
        index_t const last = --size_;
        Eigen::Map<basic_vector<Scalar>> u(steps_.row(gathered_).data(), last);
        auto const earlier = steps_.topLeftCorner(gathered_, last);
        auto at_j = at_j_.head(gathered_); // the part of column j that earlier steps take away, as coefficients
        at_j = steps_.col(j).head(gathered_);
        auto const moved = g_.row(last);
        u.head(j) = g_.row(j).head(j);
        if (j < last) {
            u(j) = moved(j);
            g_.row(j).head(j) = moved.head(j);
            for (index_t i = j + 1; i < last; ++i) {
                u(i) = g_(i, j);
                g_(i, j) = moved(i);
            }
            steps_.col(j).head(gathered_) = steps_.col(last).head(gathered_);
        }
        u.noalias() -= earlier.transpose() * at_j;
        u /= std::sqrt(diagonal_(j));
        diagonal_(j) = diagonal_(last);
        least_(j) = least_(last);
        diagonal_.head(last) = (diagonal_.head(last) - u.cwiseAbs2()).cwiseMax(least_.head(last));
        ++gathered_;
        return {u.data(), last};
    }

private:
    /// Takes the gathered steps off the lower triangle.
    void apply() {
        constexpr index_t panel = 128; // rows; few enough that little is computed above the diagonal
        for (index_t begin = 0; begin < size_; begin += panel) {
            index_t const end = std::min(size_, begin + panel);
            nn::products<Scalar>::add(end - begin, end, gathered_, -1,
                                      simd::strided<Scalar>{steps_.data() + begin, stride_}.transpose(),
                                      {steps_.data(), stride_}, &g_(begin, 0), stride_);
        }
        gathered_ = 0;
    }

    index_t stride_;
    index_t size_ = 0;
    index_t gathered_ = 0;
    basic_matrix<Scalar> g_;     // (in, stride), strictly lower triangle as of the last `apply`
    basic_matrix<Scalar> steps_; // (delay, stride), the gathered u
    basic_vector<Scalar> at_j_;  // (delay)
    basic_vector<Scalar> diagonal_;
    basic_vector<Scalar> least_;
};

/// The one of `obq`, in double.
using shrinking_inverse = basic_shrinking_inverse<>;

} // namespace detent::inline DETENT_ABI

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cstddef>
#include <limits>
#include <utility>
#include <vector>

#include "detent/core/eigen.hpp"
#include "detent/evidence/layer_inputs.hpp"
#include "detent/matrix/solution.hpp"
#include "detent/nn/products.hpp"
#include "detent/nn/triangular.hpp"
#include "detent/simd/dot.hpp"

namespace detent::inline DETENT_ABI {

// `Scalar`, here and in the other searches, is the type of weights, float. It is a parameter so that only programs that
// search spend time on compiling a search.

/// The function d G d^T of rows d, for a symmetric positive semidefinite G: what an error d of weights costs at a
/// layer's output, and what an error of activations does.
template <class Scalar = float> class basic_quadratic_form {
public:
    using scalar = Scalar;

    /// `g` (n, n); what is below its diagonal does not matter.
    explicit basic_quadratic_form(basic_matrix<Scalar> g) : upper_(std::move(g)) {
        index_t const n = size();
        for (index_t i = 0; i < n; ++i) { // d G d^T = d U d^T for the upper triangle U with its other elements doubled
            std::fill_n(upper_.data() + i * n, i, Scalar{0});
            for (index_t j = i + 1; j < n; ++j) {
                upper_(i, j) *= 2;
            }
        }
    }

    index_t size() const { return upper_.rows(); }

    /// d G d^T for each row of `d` (rows, n); `work` is memory to be used again.
    void evaluate(basic_matrix_view<Scalar> d, basic_vector<Scalar>& values, basic_matrix<Scalar>& work) const {
        constexpr index_t width = 256;
        index_t const n = size();
        work.setZero(d.rows(), n);
        for (index_t col = 0; col < n; col += width) {
            index_t const last = std::min(col + width, n);
            nn::products<Scalar>::add(d.rows(), last - col, last, 1, {d.data(), d.outerStride()}, {&upper_(0, col), n},
                                      &work(0, col), n);
        }
        values.resize(d.rows());
        for (index_t row = 0; row < d.rows(); ++row) {
            values(row) = simd::dot(work.data() + row * n, d.data() + row * d.outerStride(), n);
        }
    }

private:
    basic_matrix<Scalar> upper_;
};
using quadratic_form = basic_quadratic_form<>;

/// A quadratic form whose G is replaced by its largest eigenvectors and the diagonal of the rest. Errors of rounding
/// are almost independent of one another but for what they have in common, which those eigenvectors see; so it tells
/// ranges apart nearly as well, in many fewer steps.
template <class Scalar = float> class basic_rough_form {
public:
    using scalar = Scalar;

    /// `g` (n, n) with both triangles; `rank` eigenvectors at most.
    explicit basic_rough_form(basic_matrix_view<Scalar> g, index_t rank = 32) {
        index_t const n = g.rows();
        rank = std::min(rank, n);
        // Subspace iteration; any vectors that are not orthogonal to all of them may begin.
        basic_matrix<double> basis(n, rank);
        for (index_t i = 0; i < n; ++i) {
            for (index_t k = 0; k < rank; ++k) {
                basis(i, k) = static_cast<double>((i * 7919 + k * 104729 + i * k) % 2017) / 1008.5 - 1;
            }
        }
        basic_matrix<Scalar> next;
        for (int step = 0; step < 4; ++step) {
            divide_by_root(basis, basis, 1e-12); // nearly orthonormal
            basic_matrix<Scalar> const now = to_float(basis);
            next.setZero(n, rank);
            nn::products<Scalar>::add(n, rank, n, 1, {g.data(), g.outerStride()}, {now.data(), rank}, next.data(),
                                      rank);
            basis = to_double(next);
            if (step == 3) { // G ~ (G B) (B^T G B)^-1 (G B)^T for the basis B, as exact as floats are
                divide_by_root(basis, to_double(now), 1e-8);
            }
        }
        vectors_ = to_float(basis);
        rest_.resize(n);
        for (index_t i = 0; i < n; ++i) {
            Scalar const* const row = vectors_.data() + i * rank;
            rest_(i) = std::max(g(i, i) - simd::dot(row, row, rank), Scalar{0});
        }
    }

    index_t size() const { return vectors_.rows(); }

    /// d G d^T for each row of `d` (rows, n), nearly; `work` is memory to be used again.
    void evaluate(basic_matrix_view<Scalar> d, basic_vector<Scalar>& values, basic_matrix<Scalar>& work) const {
        index_t const rank = vectors_.cols();
        work.setZero(d.rows(), rank);
        nn::products<Scalar>::add(d.rows(), rank, size(), 1, {d.data(), d.outerStride()}, {vectors_.data(), rank},
                                  work.data(), rank);
        values.resize(d.rows());
        for (index_t row = 0; row < d.rows(); ++row) {
            Scalar const* const w = work.data() + row * rank;
            values(row) =
                simd::dot(w, w, rank) + simd::weighted_squares(d.data() + row * d.outerStride(), rest_.data(), size());
        }
    }

private:
    /// Multiplies `y` by R^-T for x^T y = R R^T (rank, rank), of whose trace at least such a part is added to its
    /// diagonal: columns of x or y may depend on one another.
    static void divide_by_root(basic_matrix<double>& y, basic_matrix<double> const& x, double least) {
        index_t const rank = y.cols();
        basic_matrix<double> gram;
        gram.setZero(rank, rank);
        nn::products<double>::add(rank, rank, y.rows(), 1, simd::strided<double>{x.data(), rank}.transpose(),
                                  {y.data(), rank}, gram.data(), rank);
        for (;; least *= 10) { // until it outweighs what rounding to float has made negative
            basic_matrix<double> root = gram;
            double const added = least * gram.trace() + std::numeric_limits<double>::min();
            for (index_t k = 0; k < rank; ++k) {
                root(k, k) += added;
            }
            if (nn::factor_upper(rank, root.data(), rank) || !(least < 1)) {
                nn::divide_by_transposed_upper(y.rows(), rank, y.data(), rank, root.data(), rank);
                return;
            }
        }
    }

    basic_matrix<Scalar> vectors_; // (n, rank); their outer products add up to the form without the rest
    basic_vector<Scalar> rest_;    // what they leave of the diagonal
};
using rough_form = basic_rough_form<>;

/// Rows d at which a form is evaluated many at a time, and a linear function with it: d G d^T + 2 l d^T.
template <class Form> class form_batch {
    using scalar = typename Form::scalar;

public:
    explicit form_batch(Form const& form) : form_(form), d_(capacity, form.size()) {}

    /// Where the next d (n) must be written before the next call; its value d G d^T + 2 l d^T is added to `sum` by then
    /// or by `finish`. `l` (n) is read by then.
    scalar* next(scalar const* l, double& sum) {
        if (std::ssize(rows_) == capacity) {
            finish();
        }
        rows_.push_back({l, &sum});
        return d_.data() + (std::ssize(rows_) - 1) * form_.size();
    }

    void finish() {
        if (rows_.empty()) {
            return;
        }
        index_t const n = form_.size();
        form_.evaluate(d_.topRows(std::ssize(rows_)), values_, work_);
        for (index_t i = 0; i < std::ssize(rows_); ++i) {
            auto const [l, sum] = rows_[static_cast<std::size_t>(i)];
            *sum += static_cast<double>(values_(i)) + 2 * static_cast<double>(simd::dot(d_.data() + i * n, l, n));
        }
        rows_.clear();
    }

private:
    struct row {
        scalar const* l;
        double* sum;
    };
    static constexpr index_t capacity = 384;

    Form const& form_;
    basic_matrix<scalar> d_; // (capacity, n)
    basic_matrix<scalar> work_;
    basic_vector<scalar> values_;
    std::vector<row> rows_; // that were begun
};

/// What errors of a layer's weights cost at its output: |W x~ - Q x|^2 for inputs x that are quantized, where they come
/// with float ones x~, is a quadratic function of each row of Q, however many inputs there were.
template <class Scalar = float> class basic_output_cost {
public:
    /// For weights with the tiles of `s`.
    basic_output_cost(layer_inputs const& known, solution const& s)
        : h(to_float(known.hessian().sum(), known.hessian().scale())) {
        mirror_upper(h);
        if (known.has_difference()) {
            c = to_float(known.difference());
        }
        for (index_t tile = 0; tile < s.scales.tiles.cols; ++tile) {
            index_t const col = s.first_of_tile(tile);
            index_t const n = s.first_of_tile(tile + 1) - col;
            exact.emplace_back(h.block(col, col, n, n));
            rough.emplace_back(h.block(col, col, n, n));
        }
    }

    /// Half the gradient of the error at Q = W, where the error is d H d^T + 2 l d^T for d = Q - W, (rows, in).
    basic_matrix<Scalar> gradient(basic_matrix_view<Scalar> w) const {
        basic_matrix<Scalar> l;
        l.setZero(w.rows(), w.cols());
        if (c.size() > 0) {
            nn::products<Scalar>::add(w.rows(), w.cols(), w.cols(), -1, nn::strided(w), {c.data(), w.cols()}, l.data(),
                                      w.cols());
        }
        return l;
    }

    basic_matrix<Scalar> h; ///< H (in, in), both triangles
    basic_matrix<Scalar> c; ///< C (in, in) of `layer_inputs`; empty where the inputs are as they were
    std::vector<basic_quadratic_form<Scalar>> exact; ///< of each column of tiles
    std::vector<basic_rough_form<Scalar>> rough;     ///< the same
};
using output_cost = basic_output_cost<>;

} // namespace detent::inline DETENT_ABI

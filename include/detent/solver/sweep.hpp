// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "detent/core/contract.hpp"
#include "detent/core/eigen.hpp"
#include "detent/core/function_ref.hpp"
#include "detent/nn/products.hpp"
#include "detent/simd/dot.hpp"

namespace detent::inline DETENT_ABI {

/// Visits the columns of some rows of a weight matrix one after the other and moves the error of each to the later
/// ones. With H = R R^T, R upper triangular, column j is rounded as (Babai's nearest plane; w are the original weights,
/// e the errors made so far)
///     t_j = w_j + 1/R_jj sum_{i<j} e_i R_ij,   q_j = round(t_j),   e_j = w_j - q_j,
/// which gives the codes of GPTQ's sweep (Frantar et al., algorithm 1) without forming the inverse of H.
/// It knows no grid, so that its matrix products are compiled once. Its bits do not depend on which rows are swept
/// together, unless the products are those of a BLAS.
template <class Scalar> class column_sweep {
public:
    /// Column-major, since the sweep walks along columns.
    using columns = Eigen::Matrix<Scalar, Eigen::Dynamic, Eigen::Dynamic, Eigen::ColMajor>;

    /// Chooses the scales of the group of columns [begin, end) from these weights (rows, end - begin).
    using fit_group = function_ref<void(index_t begin, index_t end, matrix const& weights)>;
    /// Rounds the column `j`: writes to `q` the numbers that stand for `t`, both of as many rows as the sweep has.
    using round_column = function_ref<void(index_t j, float const* t, float* q)>;

    /// For the factor `r` (in, in), which outlives the sweep.
    explicit column_sweep(basic_matrix<Scalar> const& r) : r_(r) {}

    index_t group = 0; ///< columns of a group that is fitted on the way; 0 for none
    index_t stale = 0; ///< see `gptq::stale_columns`
    index_t leaf = 16; ///< columns rounded one by one

    /// Sweeps all columns of the weights `w` (rows, in) in the order that `order` says, which is that of the factor.
    /// Returns the loss of each row, 0.5 sum_j (R_jj (t_j - q_j))^2. May be called again for other rows.
    basic_vector<double> const& run(matrix_view w, std::vector<std::int32_t> const& order, fit_group fit,
                                    round_column round);

private:
    void load(matrix_view w, std::vector<std::int32_t> const& order) {
        e_.resize(w.rows(), w.cols());
        constexpr index_t block = 128; // columns at once: a transposition meets few cache lines at a time
        for (index_t begin = 0; begin < w.cols(); begin += block) {
            index_t const end = std::min(begin + block, w.cols());
            for (index_t row = 0; row < w.rows(); ++row) {
                for (index_t j = begin; j < end; ++j) {
                    e_(row, j) = w(row, order[static_cast<std::size_t>(j)]);
                }
            }
        }
    }

    /// Sweeps columns [begin, end), for which `carried_` holds the errors of all earlier ones. Halves the range until
    /// it is a leaf, so that nearly all work is one large product on each level; a half never cuts a group.
    void run(index_t begin, index_t end, fit_group fit, round_column round) {
        index_t const n = end - begin;
        bool const several_groups = group > 0 && n > group;
        if (group > 0 && begin % group == 0 && end == std::min(begin + group, e_.cols())) {
            fit(begin, end, current(begin, end));
        }
        if (n <= leaf && !several_groups) {
            for (index_t j = begin; j < end; ++j) {
                step(j, round);
                add_multiples(j, end, 1, e_.data() + j * e_.rows(), carried_.data() + j * e_.rows());
            }
            return;
        }
        index_t const grain = several_groups ? group : 1;
        index_t const middle = begin + ceil_div(ceil_div(n, 2), grain) * grain;
        run(begin, middle, fit, round);
        add_product(middle, end, 1, e_.col(begin).data(), begin, middle, carried_.col(middle).data());
        run(middle, end, fit, round);
    }

    /// Adds `factor` times column `j` at `from` times R_(j, j+1..end) to the columns behind the one at `to`, column by
    /// column.
    void add_multiples(index_t j, index_t end, Scalar factor, Scalar const* from, Scalar* to) {
        index_t const rows = e_.rows();
        Scalar const* const r = r_.data() + j * r_.cols();
        for (index_t k = j + 1; k < end; ++k) {
            simd::add_multiple(factor * r[k], from, to + (k - j) * rows, rows);
        }
    }

    /// Adds `factor` times E R_(from..to, begin..end) to the columns [begin, end) at `sum`, where E are the columns
    /// [from, to) at `e`.
    void add_product(index_t begin, index_t end, Scalar factor, Scalar const* e, index_t from, index_t to,
                     Scalar* sum) {
        index_t const rows = e_.rows();
        simd::strided<Scalar> const r{r_.data(), r_.outerStride()};
        nn::products<Scalar>::add(end - begin, rows, to - from, factor, r.block(from, begin).transpose(), {e, rows},
                                  sum, rows);
    }

    /// The weights of columns [begin, end) once the errors of the columns before `known` have been moved to them,
    /// w + E R_known R_rest^-1: what the sweep of the published algorithm has in place of w when it gets there.
    matrix current(index_t begin, index_t end) {
        index_t const known = stale > 0 ? begin / stale * stale : begin;
        index_t const rows = e_.rows();
        Scalar const* const carried = carried_.data() + begin * rows;
        std::vector<Scalar> moved(static_cast<std::size_t>((end - known) * rows)); // (rows, end - known), by columns
        if (known < begin) {
            add_product(known, end, 1, e_.data(), 0, known, moved.data());
        } else {
            std::copy_n(carried, moved.size(), moved.data());
        }
        divide(known, end, moved.data());
        matrix weights(rows, end - begin);
        Scalar const* const e = e_.data() + begin * rows;
        Scalar const* const change = moved.data() + (begin - known) * rows;
        for (index_t row = 0; row < rows; ++row) {
            for (index_t j = 0; j < weights.cols(); ++j) {
                weights(row, j) = static_cast<float>(e[j * rows + row] + change[j * rows + row]);
            }
        }
        return weights;
    }

    /// Multiplies the columns [begin, end) at `x` by the inverse of R_(begin..end, begin..end), in place.
    void divide(index_t begin, index_t end, Scalar* x) {
        index_t const rows = e_.rows();
        if (end - begin <= 16) {
            for (index_t j = begin; j < end; ++j, x += rows) {
                for (index_t row = 0; row < rows; ++row) {
                    x[row] /= r_(j, j);
                }
                add_multiples(j, end, -1, x, x);
            }
            return;
        }
        index_t const middle = begin + ceil_div(end - begin, 2);
        Scalar* const rest = x + (middle - begin) * rows;
        divide(begin, middle, x);
        add_product(middle, end, -1, x, begin, middle, rest);
        divide(middle, end, rest);
    }

    void step(index_t j, round_column round) {
        Scalar const diagonal = r_(j, j);
        auto e = e_.col(j); // still the weights
        auto t = carried_.col(j);
        t = e + t / diagonal;
        t_ = t.template cast<float>();
        round(j, t_.data(), q_.data());
        auto const q = q_.template cast<Scalar>();
        e -= q;
        losses_ += 0.5 * (diagonal * (t - q)).template cast<double>().cwiseAbs2();
    }

    basic_matrix<Scalar> const& r_;
    columns e_;       // (rows, in), errors w - q of the columns done, weights w of the others
    columns carried_; // (rows, in), sum over earlier columns i of e_i R_ij
    float_vector t_;
    float_vector q_;
    basic_vector<double> losses_;
};

template <class Scalar>
basic_vector<double> const& column_sweep<Scalar>::run(matrix_view w, std::vector<std::int32_t> const& order,
                                                      fit_group fit, round_column round) {
    DETENT_EXPECTS(leaf > 0 && group >= 0 && stale >= 0 && w.cols() == r_.cols());
    load(w, order);
    carried_.resize(w.rows(), w.cols());
    std::fill_n(carried_.data(), carried_.size(), Scalar{0});
    t_.resize(w.rows());
    q_.resize(w.rows());
    losses_.resize(w.rows());
    std::fill_n(losses_.data(), losses_.size(), 0.0);
    run(0, w.cols(), fit, round);
    return losses_;
}

} // namespace detent::inline DETENT_ABI

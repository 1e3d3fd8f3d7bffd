// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <utility>

#include "detent/core/contract.hpp"
#include "detent/core/eigen.hpp"
#include "detent/core/function_ref.hpp"

namespace detent::inline DETENT_ABI {

/// Visits the columns of some rows of a weight matrix one after the other and moves the error of each to the later
/// ones. With H = R R^T, R upper triangular, column j is rounded as (Babai's nearest plane; w are the original weights,
/// e the errors made so far)
///     t_j = w_j + 1/R_jj sum_{i<j} e_i R_ij,   q_j = round(t_j),   e_j = w_j - q_j,
/// which gives the codes of GPTQ's sweep (Frantar et al., algorithm 1) without forming the inverse of H.
/// It knows no grid, so that its matrix products are compiled once.
template <class Scalar> class column_sweep {
public:
    /// Column-major, since the sweep walks along columns.
    using columns = Eigen::Matrix<Scalar, Eigen::Dynamic, Eigen::Dynamic>;

    /// Chooses the scales of the group of columns [begin, end) from these weights (rows, end - begin).
    using fit_group = function_ref<void(index_t begin, index_t end, matrix const& weights)>;
    /// Rounds the column `j`: writes to `q` the numbers that stand for `t`, both of as many rows as the sweep has.
    using round_column = function_ref<void(index_t j, float const* t, float* q)>;

    /// For the weights `w` (rows, in) and the factor `r` (in, in), both in the order of the sweep.
    column_sweep(columns w, basic_matrix<Scalar> const& r)
        : w_(std::move(w)), r_(r), e_(columns::Zero(w_.rows(), w_.cols())), carried_(e_) {}

    index_t group = 0; ///< columns of a group that is fitted on the way; 0 for none
    index_t stale = 0; ///< see `gptq::stale_columns`
    index_t leaf = 16; ///< columns rounded one by one

    /// Sweeps all columns and returns the loss 0.5 sum (R_jj (t_j - q_j))^2.
    double run(fit_group fit, round_column round) {
        DETENT_EXPECTS(leaf > 0 && group >= 0 && stale >= 0);
        loss_ = 0;
        run(0, w_.cols(), fit, round);
        return loss_;
    }

private:
    /// Sweeps columns [begin, end), for which `carried_` holds the errors of all earlier ones. Halves the range until
    /// it is a leaf, so that nearly all work is one large product on each level; a half never cuts a group.
    void run(index_t begin, index_t end, fit_group fit, round_column round) {
        index_t const n = end - begin;
        bool const several_groups = group > 0 && n > group;
        if (group > 0 && begin % group == 0 && end == std::min(begin + group, w_.cols())) {
            fit(begin, end, current(begin, end));
        }
        if (n <= leaf && !several_groups) {
            for (index_t j = begin; j < end; ++j) {
                step(j, round);
                carried_.middleCols(j + 1, end - j - 1).noalias() += e_.col(j) * r_.row(j).segment(j + 1, end - j - 1);
            }
            return;
        }
        index_t const grain = several_groups ? group : 1;
        index_t const middle = begin + ceil_div(ceil_div(n, 2), grain) * grain;
        run(begin, middle, fit, round);
        carried_.middleCols(middle, end - middle).noalias() +=
            e_.middleCols(begin, middle - begin) * r_.block(begin, middle, middle - begin, end - middle);
        run(middle, end, fit, round);
    }

    /// The weights of columns [begin, end) once the errors of the columns before `known` have been moved to them,
    /// w + E R_known R_rest^-1: what the sweep of the published algorithm has in place of w when it gets there.
    matrix current(index_t begin, index_t end) const {
        index_t const known = stale > 0 ? begin / stale * stale : begin;
        columns moved = carried_.middleCols(begin, end - begin); // (rows, end - known)
        if (known < begin) {
            moved = e_.leftCols(known) * r_.block(0, known, known, end - known);
        }
        r_.block(known, known, end - known, end - known)
            .template triangularView<Eigen::Upper>()
            .template solveInPlace<Eigen::OnTheRight>(moved);
        return (w_.middleCols(begin, end - begin) + moved.rightCols(end - begin)).template cast<float>();
    }

    void step(index_t j, round_column round) {
        basic_vector<Scalar> const t = w_.col(j) + carried_.col(j) / r_(j, j); // (rows)
        vector const to_round = t.template cast<float>();
        vector rounded(t.size());
        round(j, to_round.data(), rounded.data());
        auto const q = rounded.template cast<Scalar>();
        e_.col(j) = w_.col(j) - q;
        loss_ += 0.5 * (r_(j, j) * (t - q)).template cast<double>().squaredNorm();
    }

    columns w_;
    basic_matrix<Scalar> const& r_;
    columns e_;       // (rows, in), errors w - q of the columns done
    columns carried_; // (rows, in), sum over earlier columns i of e_i R_ij
    double loss_ = 0;
};

} // namespace detent::inline DETENT_ABI

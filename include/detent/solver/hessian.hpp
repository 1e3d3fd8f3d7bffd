// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <string>
#include <utility>

#include "detent/core/contract.hpp"
#include "detent/core/eigen.hpp"
#include "detent/core/error.hpp"
#include "detent/core/executor.hpp"

namespace detent::inline DETENT_ABI {

/// Accumulates H = 2/n sum x x^T over the inputs x of a linear layer, the Hessian of its mean squared output error
/// (GPTQ, section 3). Products are taken in float over short runs of tokens and summed in double; only the upper
/// triangle is kept, and the same bits come out for any executor.
class hessian {
public:
    hessian() = default;
    explicit hessian(index_t features) : sum_(basic_matrix<double>::Zero(features, features)) {}

    /// The Hessian of `activations` (token, feature).
    static hessian of(matrix_view activations, executor_ref executor = {}) {
        hessian h(activations.cols());
        h.add(activations, executor);
        return h;
    }

    /// Adds inputs (token, feature). @throws error when the number of features differs.
    void add(matrix_view x, executor_ref executor = {}) {
        if (x.cols() != features()) {
            throw error("hessian", "expected inputs of " + std::to_string(features()) + " features, got " +
                                       std::to_string(x.cols()));
        }
        constexpr index_t tokens_per_run = 256; // short enough for float sums, long enough for a product at full speed
        constexpr index_t panel = 128;          // columns of the triangle that one task owns
        executor.for_pieces(features(), panel, [&](index_t begin, index_t end) {
            matrix product; // (end, end - begin)
            for (index_t t = 0; t < x.rows(); t += tokens_per_run) {
                auto const run = x.middleRows(t, std::min(tokens_per_run, x.rows() - t));
                product.noalias() = run.leftCols(end).transpose() * run.middleCols(begin, end - begin);
                sum_.block(0, begin, end, end - begin) += product.cast<double>();
            }
        });
        tokens_ += x.rows();
    }

    /// Adds what another Hessian has seen.
    hessian& operator+=(hessian const& other) {
        DETENT_EXPECTS(features() == other.features());
        sum_ += other.sum_;
        tokens_ += other.tokens_;
        return *this;
    }

    index_t features() const { return sum_.rows(); }
    /// How many inputs it has seen.
    index_t tokens() const { return tokens_; }

    /// H at row `i`, column `j`.
    double operator()(index_t i, index_t j) const { return scale() * (i <= j ? sum_(i, j) : sum_(j, i)); }

    /// The diagonal of H.
    basic_vector<double> diagonal() const { return scale() * sum_.diagonal(); }

    /// 0.5 tr(D H D^T): the mean over the inputs of |D x|^2, for D (out, in).
    double quadratic(matrix_view d, executor_ref executor = {}) const {
        constexpr index_t rows_per_task = 64;
        basic_vector<double> part = basic_vector<double>::Zero(ceil_div(d.rows(), rows_per_task));
        executor.for_pieces(d.rows(), rows_per_task, [&](index_t begin, index_t end) {
            basic_matrix<double> const rows = d.middleRows(begin, end - begin).cast<double>(); // (end - begin, in)
            basic_matrix<double> const product = rows * sum_.selfadjointView<Eigen::Upper>();
            part(begin / rows_per_task) = product.cwiseProduct(rows).sum();
        });
        return 0.5 * scale() * part.sum();
    }

private:
    double scale() const { return tokens_ > 0 ? 2.0 / static_cast<double>(tokens_) : 0.0; }

    basic_matrix<double> sum_; // (in, in), valid on and above the diagonal
    index_t tokens_ = 0;
};

} // namespace detent::inline DETENT_ABI

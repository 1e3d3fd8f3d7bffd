// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cmath>
#include <iterator>
#include <numeric>
#include <string>
#include <type_traits>
#include <vector>

#include "detent/evidence/factor.hpp"
#include "detent/simd/dot.hpp"
#include "detent/solver/inverse.hpp"
#include "detent/solver/rtn.hpp"
#include "detent/solver/solver.hpp"

namespace detent::inline DETENT_ABI {

/// OBQ, exact and greedy: in every row rounds the weight that costs least after all others have made up for it as well
/// as they can, until none is left (Optimal Brain Quantization; Frantar and Alistarh, "Optimal Brain Compression",
/// algorithm 3 and section 5). Every row has its own order.
///
/// Scales are fitted once, to the original weights. Everything is in `Scalar` but the rounding, which sees floats.
/// It costs in^3/3 flops for every row, in products of rank `delay`, and in^2 numbers for every worker besides the
/// shared inverse: good for up to a few thousand inputs. Rows are independent tasks; the same bits come out for any
/// executor. `Scalar` is the type of the sums; the factorization is always in double.
///
/// Greedy is not always better. It beats GPTQ where inputs are of like size; where they differ much it rounds the
/// weights of large inputs last, with little left to make up for them, and GPTQ in activation order loses less.
struct obq {
    using evidence = hessian;

    double damping = 0.01; ///< added to H, relative to its mean diagonal element; 0 in the published code
    /// Where a weight is more than half its scale away from the grid, which on integers means that it has left their
    /// range, round the farthest first, before it drifts further, unless the next would be a weight that is 0; as the
    /// published code does.
    bool outliers_first = true;
    /// Weights that are 0 at the start stay 0; they neither receive nor give compensation. For pruned layers.
    bool keep_zeros = false;
    index_t delay = 64;  ///< eliminations gathered into one matrix product
    bool or_rtn = false; ///< as of `gptq`

    /// Codes and scales for `w` (out, in). @throws error when a weight or `h` is not finite, their sizes differ, `h`
    /// has seen nothing or cannot be factored (but see `or_rtn`), an option is out of range, or a zero should be kept
    /// that the grid does not have.
    template <class Scalar = double>
    solution solve(matrix_view w, hessian const& h, problem const& p, executor_ref executor = {}) const;

    /// How `solve` factors the Hessian: inputs in their natural order.
    factor_options factoring() const { return {damping, false, or_rtn}; }

    /// Codes and scales for `w` from the Hessian factored as `factoring` says.
    template <class Scalar = double>
    solution solve(matrix_view w, hessian_factor f, problem const& p, executor_ref executor = {}) const;

    friend constexpr bool operator==(obq const&, obq const&) = default;

private:
    template <class Scalar> static basic_matrix<Scalar> in_scalar(basic_matrix<double> m) {
        if constexpr (std::is_same_v<Scalar, double>) {
            return m;
        } else {
            return to_float(m);
        }
    }

    /// @throws error where a weight is 0 and the grid has no zero at its scale.
    template <class Scalar> static void expect_zeros(matrix_view w, solution const& s, problem const& p) {
        float_vector scales(w.cols());
        float_vector zeros(w.cols());
        float_vector numbers(w.cols());
        std::vector<float> const zero(static_cast<std::size_t>(w.cols()));
        std::vector<code> codes(zero.size());
        for (index_t row = 0; row < w.rows(); ++row) {
            s.scales_of_row(row, scales.data(), zeros.data());
            p.round(w.cols(), zero.data(), scales.data(), zeros.data(), codes.data(), numbers.data());
            for (index_t col = 0; col < w.cols(); ++col) {
                if (w(row, col) == 0 && numbers(col) != 0) {
                    raise(error("weights", "the zero at row " + std::to_string(row) + ", column " +
                                               std::to_string(col) + " cannot be kept: the grid has no zero there"));
                }
            }
        }
    }

    /// What is known of the weights of one row that are not rounded yet, each at a place that all arrays agree on.
    template <class Scalar> class row_sweep {
    public:
        row_sweep(index_t n, index_t delay)
            : inverse_(n, delay), input_(static_cast<std::size_t>(n)), codes_(static_cast<std::size_t>(n)), w_(n),
              to_round_(n), numbers_(n), scales_(n), zeros_(n), q_(n), limits_(n), errors_(n), costs_(n) {}

        /// Rounds all weights of `row` and returns its loss.
        double run(obq const& options, matrix_view weights, index_t row, basic_matrix<Scalar> const& inverse,
                   basic_vector<Scalar> const& least, problem const& p, solution& s) {
            inverse_.reset(inverse, least);
            s.scales_of_row(row, scales_.data(), zeros_.data());
            for (index_t i = 0; i < w_.size(); ++i) {
                input_[static_cast<std::size_t>(i)] = i;
                w_(i) = static_cast<Scalar>(weights(row, i));
                auto const half = static_cast<Scalar>(scales_(i)) / 2;
                limits_(i) = half * half;
            }
            if (options.keep_zeros) {
                round(p);
                // The inverse without their rows and columns of H is what elimination leaves of the inverse.
                for (index_t i = w_.size() - 1; i >= 0; --i) {
                    if (w_(i) == 0) {
                        s.code_at(row, input_[static_cast<std::size_t>(i)]) = codes_[static_cast<std::size_t>(i)];
                        remove(i);
                    }
                }
            }
            double loss = 0;
            while (inverse_.size() > 0) {
                round(p);
                index_t const j = next(options.outliers_first);
                s.code_at(row, input_[static_cast<std::size_t>(j)]) = codes_[static_cast<std::size_t>(j)];
                loss += 0.5 * static_cast<double>(costs_(j));
                Scalar const step = (w_(j) - q_(j)) / std::sqrt(inverse_.diagonal()(j));
                auto const u = remove(j);
                w_.head(u.size()) -= step * u;
            }
            return loss;
        }

    private:
        void round(problem const& p) {
            index_t const n = inverse_.size();
            for (index_t i = 0; i < n; ++i) {
                to_round_(i) = static_cast<float>(w_(i));
            }
            p.round(n, to_round_.data(), scales_.data(), zeros_.data(), codes_.data(), numbers_.data());
            for (index_t i = 0; i < n; ++i) {
                q_(i) = static_cast<Scalar>(numbers_(i));
            }
        }

        /// The place of the weight to round next: least (w - q)^2 / G_jj, or farthest from the grid.
        index_t next(bool farthest_first) {
            index_t const n = inverse_.size();
            auto errors = errors_.head(n);
            auto costs = costs_.head(n);
            errors = (w_.head(n) - q_.head(n)).cwiseAbs2();
            costs = errors.cwiseQuotient(inverse_.diagonal());
            index_t const j = first(costs, costs.minCoeff());
            if (farthest_first && w_(j) != 0 && (errors - limits_.head(n)).maxCoeff() > 0) {
                return first(errors, errors.maxCoeff());
            }
            return j;
        }

        /// The place of the first input whose value is `wanted`.
        template <class Values> index_t first(Values const& values, Scalar wanted) const {
            index_t found = 0;
            for (index_t i = 1; i < values.size(); ++i) {
                if (values(i) == wanted && (values(found) != wanted || input_[static_cast<std::size_t>(i)] <
                                                                           input_[static_cast<std::size_t>(found)])) {
                    found = i;
                }
            }
            return found;
        }

        typename basic_shrinking_inverse<Scalar>::step remove(index_t j) {
            auto const u = inverse_.remove(j);
            index_t const last = inverse_.size();
            input_[static_cast<std::size_t>(j)] = input_[static_cast<std::size_t>(last)];
            w_(j) = w_(last);
            scales_(j) = scales_(last);
            zeros_(j) = zeros_(last);
            limits_(j) = limits_(last);
            return u;
        }

        basic_shrinking_inverse<Scalar> inverse_;
        std::vector<index_t> input_;
        std::vector<code> codes_;
        basic_vector<Scalar> w_; // with the errors made so far
        float_vector to_round_;
        float_vector numbers_; // what w is rounded to
        float_vector scales_;
        float_vector zeros_;
        basic_vector<Scalar> q_;      // the same numbers
        basic_vector<Scalar> limits_; // squared half steps
        basic_vector<Scalar> errors_; // (w - q)^2
        basic_vector<Scalar> costs_;  // twice what rounding adds to the loss
    };
};

template <class Scalar>
solution obq::solve(matrix_view w, hessian const& h, problem const& p, executor_ref executor) const {
    expect_features(h.features(), w); // before the work
    problem::expect_weights(w);
    return solve<Scalar>(w, factor(h, factoring(), executor), p, executor);
}

template <class Scalar>
solution obq::solve(matrix_view w, hessian_factor f, problem const& p, executor_ref executor) const {
    expect_features(std::ssize(f.order), w);
    expect_valid(std::is_sorted(f.order.begin(), f.order.end()), "obq", "needs a factor with inputs in natural order");
    expect_option(delay > 0, "obq", "delay", delay, "positive");
    solution s = p.begin(w);
    if (f.r.size() == 0) {
        s = rtn{}.solve(w, {}, p, executor);
        f.describe(s.report);
        if (keep_zeros) {
            expect_zeros<Scalar>(w, s, p);
        }
        return s;
    }
    f.describe(s.report);
    p.fit_all(w, s, executor);
    if (keep_zeros) {
        expect_zeros<Scalar>(w, s, p);
    }
    basic_matrix<Scalar> const inverse =
        in_scalar<Scalar>(inverse_from_factor(f.r, executor)); // (in, in), lower triangle
    basic_vector<Scalar> least(w.cols());                      // (in), 1 / H_jj
    for (index_t j = 0; j < w.cols(); ++j) {
        double const* const row = f.r.data() + j * w.cols();
        least(j) = static_cast<Scalar>(1 / simd::dot(row, row, w.cols()));
    }
    f.r.resize(0, 0);

    std::vector<double> losses(static_cast<std::size_t>(w.rows()));
    // A piece is some rows only so that they share their workspace; no result depends on it.
    index_t const piece = std::clamp<index_t>(w.rows() / executor.workers(), 1, 8);
    executor.for_pieces(w.rows(), piece, [&](index_t first, index_t last) {
        row_sweep<Scalar> sweep(w.cols(), delay);
        for (index_t row = first; row < last; ++row) {
            losses[static_cast<std::size_t>(row)] = sweep.run(*this, w, row, inverse, least, p, s);
        }
    });
    s.report.loss = std::accumulate(losses.begin(), losses.end(), 0.0);
    return s;
}

#if defined(DETENT_COMPILED)
extern template solution obq::solve<double>(matrix_view, hessian const&, problem const&, executor_ref) const;
extern template solution obq::solve<double>(matrix_view, hessian_factor, problem const&, executor_ref) const;
#endif

} // namespace detent::inline DETENT_ABI

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "detent/core/contract.hpp"
#include "detent/evidence/hessian.hpp"
#include "detent/matrix/solution.hpp"

namespace detent::inline DETENT_ABI {

/// Overwrites `a` (n, n), of which only the upper triangle is read, by the upper triangular R with a = R R^T and
/// returns true; false where `a` is not positive definite. This is an ordinary Cholesky factorization of `a` with its
/// rows and columns reversed, done in place, a block of columns at a time from the last to the first; or by LAPACK
/// where Eigen was told to use it.
inline bool factor_reversed(basic_matrix<double>& a, [[maybe_unused]] executor_ref executor = {}) {
#if defined(EIGEN_USE_LAPACKE)
    basic_matrix<double> reversed = a.reverse(); // lower triangle
    Eigen::LLT<Eigen::Ref<basic_matrix<double>>> const llt(reversed);
    if (llt.info() != Eigen::Success || !reversed.diagonal().allFinite()) {
        return false;
    }
    a.reverse() = basic_matrix<double>(reversed.triangularView<Eigen::Lower>());
    return true;
#else
    constexpr index_t block = 128;
    index_t const n = a.rows();
    index_t const stride = a.outerStride();
    for (index_t begin = (n - 1) / block * block; begin >= 0; begin -= block) {
        index_t const end = std::min(begin + block, n);
        index_t const width = end - begin;
        index_t const piece = std::clamp<index_t>(ceil_div(end, 2 * executor.workers()), 48, 384); // rows of a task
        // What the columns to the right account for: a -= R_(.,right) R_(block,right)^T.
        executor.for_pieces(end, piece, [&](index_t row, index_t last) {
            nn::products<double>::add(last - row, width, n - end, -1, {a.data() + row * stride + end, stride},
                                      simd::strided<double>{a.data() + begin * stride + end, stride}.transpose(),
                                      &a(row, begin), stride);
        });
        basic_matrix<double> reversed(width, width); // lower triangle
        for (index_t i = 0; i < width; ++i) {
            for (index_t j = 0; j <= i; ++j) {
                reversed(i, j) = a(end - 1 - i, end - 1 - j);
            }
        }
        Eigen::LLT<Eigen::Ref<basic_matrix<double>>> const llt(reversed);
        if (llt.info() != Eigen::Success || !reversed.diagonal().allFinite()) {
            return false;
        }
        basic_matrix<double> const r = basic_matrix<double>(reversed.triangularView<Eigen::Lower>()).reverse();
        basic_matrix<double> const inverse =
            r.triangularView<Eigen::Upper>().solve(basic_matrix<double>::Identity(width, width));
        a.block(begin, begin, width, width) = r;
        a.block(begin, 0, width, begin).setZero();
        executor.for_pieces(begin, piece, [&](index_t row, index_t last) {
            auto above = a.block(row, begin, last - row, width);
            basic_matrix<double> const rest = above;
            above.setZero();
            nn::products<double>::add(last - row, width, width, 1, {rest.data(), width},
                                      simd::strided<double>{inverse.data(), width}.transpose(), &a(row, begin), stride);
        });
    }
    return true;
#endif
}

/// How a solver wants the Hessian factored.
struct factor_options {
    double damping = 0.01;      ///< added to H, relative to its mean diagonal element
    bool by_activation = false; ///< in descending order of the diagonal of H, not in the natural order of inputs

    friend constexpr bool operator==(factor_options, factor_options) = default;
};

/// A Hessian made ready for a sweep over its columns: ordered, damped and factored.
struct hessian_factor {
    /// Upper triangular R with H + damping = R R^T, columns in the order of the sweep. Empty if no damping sufficed.
    basic_matrix<double> r;
    std::vector<std::int32_t> order; ///< column k of the sweep is input `order[k]`
    std::vector<bool> dead;          ///< by input: its diagonal element was exactly 0
    double damping = 0;              ///< relative to the mean diagonal element
    int damping_raised = 0;          ///< how many times `damping` was multiplied by 10
    std::string failure;             ///< why `r` is empty

    /// Writes to a solver's report what happened here.
    void describe(solve_report& report) const {
        report.damping = r.size() > 0 ? damping : 0;
        report.damping_raised = damping_raised;
        report.dead_columns = r.size() > 0 ? std::ranges::count(dead, true) : 0;
        report.fallback = failure;
    }
};

/// The diagonal of `h`. @throws error naming the input where it is not finite.
inline basic_vector<double> finite_diagonal(hessian const& h) {
    basic_vector<double> diagonal = h.diagonal();
    for (index_t j = 0; j < diagonal.size(); ++j) {
        if (!std::isfinite(diagonal(j))) {
            throw error("hessian", "input " + std::to_string(j) + " was not finite");
        }
    }
    return diagonal;
}

/// Orders, damps and factors `h`; `order` names every input once. The diagonal elements of dead inputs become 1 before
/// their mean is taken (GPTQ's reference), so that their weights are rounded to nearest and change no others. Where the
/// factorization fails, `damping` grows tenfold up to 1; where that fails too or `h` has seen nothing, the answer says
/// so.
///
/// H = R R^T with R *upper* triangular serves in place of the factor of the inverse, which then need not be formed.
/// @throws error when `h` is not finite.
inline hessian_factor factor(hessian const& h, double damping, std::vector<std::int32_t> order,
                             executor_ref executor = {}) {
    index_t const n = h.features();
    DETENT_EXPECTS(std::ssize(order) == n);
    basic_vector<double> diagonal = finite_diagonal(h);
    hessian_factor f;
    f.order = std::move(order);
    f.dead.resize(static_cast<std::size_t>(n));
    for (index_t j = 0; j < n; ++j) {
        if (diagonal(j) == 0) {
            f.dead[static_cast<std::size_t>(j)] = true;
            diagonal(j) = 1;
        }
    }
    if (h.tokens() == 0 || n == 0) {
        f.failure = "no input was ever seen";
        return f;
    }
    f.r.resize(n, n);
    for (f.damping = damping;; f.damping = std::clamp(10 * f.damping, 1e-3, 1.0), ++f.damping_raised) {
        double const added = f.damping * diagonal.mean();
        executor.for_pieces(n, 64, [&](index_t begin, index_t end) {
            for (index_t i = begin; i < end; ++i) {
                auto const a = f.order[static_cast<std::size_t>(i)];
                f.r(i, i) = diagonal(a) + added;
                for (index_t j = i + 1; j < n; ++j) {
                    f.r(i, j) = h(a, f.order[static_cast<std::size_t>(j)]);
                }
            }
        });
        if (factor_reversed(f.r, executor)) {
            return f;
        }
        if (!(f.damping < 1)) { // also where it is no number
            f.r.resize(0, 0);
            f.failure = "the Hessian could not be factored";
            return f;
        }
    }
}

/// The positions of `values` in their natural order, or by descending value where `descending`.
inline std::vector<std::int32_t> order_of(basic_vector<double> const& values, bool descending) {
    std::vector<std::int32_t> order(static_cast<std::size_t>(values.size()));
    std::iota(order.begin(), order.end(), 0);
    if (descending) {
        std::ranges::stable_sort(order, [&](auto a, auto b) { return values(a) > values(b); });
    }
    return order;
}

/// Orders, damps and factors `h` as `options` say.
inline hessian_factor factor(hessian const& h, factor_options options = {}, executor_ref executor = {}) {
    return factor(h, options.damping, order_of(finite_diagonal(h), options.by_activation), executor);
}

/// H + damping, up to its scale, from its factor: R R^T with inputs in their natural order, of which only the upper
/// triangle is there. @throws error when there is no factor.
inline basic_matrix<double> damped_hessian(hessian_factor const& f, executor_ref executor = {}) {
    index_t const n = f.r.rows();
    if (n == 0) {
        throw error("hessian", f.failure);
    }
    basic_matrix<double> product = basic_matrix<double>::Zero(n, n); // in the order of the sweep
    executor.for_pieces(n, 64, [&](index_t begin, index_t end) {
        nn::products<double>::add(end - begin, n, n - begin, 1, {&f.r(begin, begin), n},
                                  simd::strided<double>{f.r.data() + begin, n}.transpose(), &product(begin, 0), n);
    });
    basic_matrix<double> h = basic_matrix<double>::Zero(n, n);
    for (index_t i = 0; i < n; ++i) {
        for (index_t j = 0; j < n; ++j) {
            auto const [a, b] = std::minmax(f.order[static_cast<std::size_t>(i)], f.order[static_cast<std::size_t>(j)]);
            h(a, b) = product(i, j);
        }
    }
    return h;
}

} // namespace detent::inline DETENT_ABI

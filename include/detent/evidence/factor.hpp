// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "detent/core/finite.hpp"
#include "detent/evidence/hessian.hpp"
#include "detent/matrix/solution.hpp"
#include "detent/nn/triangular.hpp"

namespace detent::inline DETENT_ABI {

/// Overwrites `a` (n, n), of which only the upper triangle is read, by the upper triangular R with a = R R^T and
/// returns true; false where `a` is not positive definite. This is an ordinary Cholesky factorization of `a` with its
/// rows and columns reversed, done in place, a block of columns at a time from the last to the first; or by LAPACK
/// where Eigen was told to use it.
template <class Scalar> bool factor_reversed(basic_matrix<Scalar>& a, [[maybe_unused]] executor_ref executor = {}) {
#if defined(EIGEN_USE_LAPACKE)
    basic_matrix<Scalar> reversed = a.reverse(); // lower triangle
    Eigen::LLT<Eigen::Ref<basic_matrix<Scalar>>> const llt(reversed);
    if (llt.info() != Eigen::Success || !reversed.diagonal().allFinite()) {
        return false;
    }
    a.reverse() = basic_matrix<Scalar>(reversed.template triangularView<Eigen::Lower>());
    return true;
#else
    constexpr index_t block = 128;
    index_t const n = a.rows();
    std::vector<Scalar> inverse(static_cast<std::size_t>(block * block)); // of the triangle of the block
    for (index_t begin = (n - 1) / block * block; begin >= 0; begin -= block) {
        index_t const end = std::min(begin + block, n);
        index_t const width = end - begin;
        Scalar* const columns = a.data() + begin;
        Scalar* const triangle = columns + begin * n;
        index_t const piece = std::clamp<index_t>(ceil_div(end, 2 * executor.workers()), 48, 384); // rows of a task
        // What the columns to the right account for: a -= R_(.,right) R_(block,right)^T.
        executor.for_pieces(end, piece, [&](index_t row, index_t last) {
            nn::products<Scalar>::add(last - row, width, n - end, -1, {a.data() + row * n + end, n},
                                      simd::strided<Scalar>{a.data() + begin * n + end, n}.transpose(),
                                      columns + row * n, n);
        });
        if (!nn::factor_upper(width, triangle, n)) {
            return false;
        }
        nn::invert_upper(width, triangle, n, inverse.data(), width);
        for (index_t row = begin; row < end; ++row) {
            std::fill_n(a.data() + row * n, row, Scalar{0});
        }
        executor.for_pieces(begin, piece, [&](index_t row, index_t last) {
            nn::multiply_by(last - row, width, columns + row * n, n,
                            simd::strided<Scalar>{inverse.data(), width}.transpose());
        });
    }
    return true;
#endif
}

/// How a solver wants the Hessian factored.
struct factor_options {
    double damping = 0.01;      ///< added to H, relative to its mean diagonal element
    bool by_activation = false; ///< in descending order of the diagonal of H, not in the natural order of inputs
    /// Whether there need be no factor: where no token was seen or no damping suffices, solvers then round to nearest
    /// and say why in `solve_report::fallback`. Else that is an error.
    bool or_rtn = false;

    friend constexpr bool operator==(factor_options, factor_options) = default;
};

/// A Hessian made ready for a sweep over its columns: ordered, damped and factored.
template <class Scalar = double> struct basic_hessian_factor {
    /// Upper triangular R with H + damping = R R^T, columns in the order of the sweep. Empty if no damping sufficed.
    basic_matrix<Scalar> r;
    std::vector<std::int32_t> order; ///< column k of the sweep is input `order[k]`
    std::vector<bool> dead;          ///< by input: its diagonal element was exactly 0
    double damping = 0;              ///< relative to the mean diagonal element
    int damping_raised = 0;          ///< how many times `damping` was multiplied by 10
    std::string failure;             ///< why `r` is empty

    /// Writes to a solver's report what happened here.
    void describe(solve_report& report) const {
        report.damping = r.size() > 0 ? damping : 0;
        report.damping_raised = damping_raised;
        report.dead_columns = 0;
        for (bool const is_dead : dead) {
            report.dead_columns += r.size() > 0 && is_dead ? 1 : 0;
        }
        report.fallback = failure;
    }
};

/// The factor that solvers take, in double.
using hessian_factor = basic_hessian_factor<>;

// Functions that take a Hessian take what converts to one too; the factor has the type of its numbers.

/// The diagonal of `h`. @throws error naming the input where it is not finite.
template <class Scalar = double>
basic_vector<Scalar> finite_diagonal(std::type_identity_t<basic_hessian<Scalar>> const& h) {
    basic_vector<Scalar> diagonal = h.diagonal();
    for (index_t j = 0; j < diagonal.size(); ++j) {
        if (!is_finite(diagonal(j))) {
            raise(error("hessian", "input " + std::to_string(j) + " was not finite"));
        }
    }
    return diagonal;
}

/// @throws error unless `order` names each of `n` inputs once.
template <class Scalar> void expect_permutation(std::vector<std::int32_t> const& order, index_t n) {
    dependent<std::vector<bool>, Scalar> seen(static_cast<std::size_t>(n));
    bool right = std::ssize(order) == n;
    for (auto const input : order) {
        right = right && input >= 0 && input < n && !seen[static_cast<std::size_t>(input)];
        if (right) {
            seen[static_cast<std::size_t>(input)] = true;
        }
    }
    expect_valid(right, "hessian", "is to be factored in an order that does not name each input once");
}

/// Orders, damps and factors `h` as `options` say, but in `order`, which names every input once. The diagonal elements
/// of dead inputs become 1 before their mean is taken (GPTQ's reference), so that their weights are rounded to nearest
/// and change no others. Where the factorization fails, `damping` grows tenfold up to 1.
///
/// H = R R^T with R *upper* triangular serves in place of the factor of the inverse, which then need not be formed.
/// @throws error when `h` is not finite, `damping` negative or not finite, or `order` no permutation; and where `h` has
/// seen nothing or cannot be factored, unless `options` allow the answer to have no factor and say why.
template <class Scalar = double>
basic_hessian_factor<Scalar> factor(std::type_identity_t<basic_hessian<Scalar>> const& h, factor_options options,
                                    std::vector<std::int32_t> order, executor_ref executor = {}) {
    auto const [damping, by_activation, or_rtn] = options;
    index_t const n = h.features();
    expect_option(damping >= 0 && is_finite(damping), "hessian", "damping", damping, "finite and 0 or more");
    expect_permutation<Scalar>(order, n);
    basic_vector<Scalar> diagonal = finite_diagonal<Scalar>(h);
    basic_hessian_factor<Scalar> f;
    f.order = std::move(order);
    f.dead.resize(static_cast<std::size_t>(n));
    Scalar trace = 0;
    for (index_t j = 0; j < n; ++j) {
        if (diagonal(j) == 0) {
            f.dead[static_cast<std::size_t>(j)] = true;
            diagonal(j) = 1;
        }
        trace += diagonal(j);
    }
    if (h.tokens() == 0 || n == 0) {
        f.failure = "no input was ever seen";
        expect_valid(or_rtn, "hessian", "has seen no tokens (only with or_rtn are weights then rounded to nearest)");
        return f;
    }
    f.r.resize(n, n);
    for (f.damping = damping;; f.damping = std::clamp(10 * f.damping, 1e-3, 1.0), ++f.damping_raised) {
        Scalar const added = static_cast<Scalar>(f.damping) * (trace / static_cast<Scalar>(n));
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
            expect_valid(or_rtn, "hessian",
                         "could not be factored even with a damping of 1 (only with or_rtn are "
                         "weights then rounded to nearest)");
            return f;
        }
    }
}

/// The positions of `values` in their natural order, or by descending value where `descending`.
template <class Scalar> std::vector<std::int32_t> order_of(basic_vector<Scalar> const& values, bool descending) {
    std::vector<std::int32_t> order(static_cast<std::size_t>(values.size()));
    std::iota(order.begin(), order.end(), 0);
    if (descending) {
        std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return values(a) > values(b); });
    }
    return order;
}

/// Orders, damps and factors `h` as `options` say. @throws error as the other.
template <class Scalar = double>
basic_hessian_factor<Scalar> factor(std::type_identity_t<basic_hessian<Scalar>> const& h, factor_options options = {},
                                    executor_ref executor = {}) {
    auto order = order_of(finite_diagonal<Scalar>(h), options.by_activation);
    return factor<Scalar>(h, options, std::move(order), executor);
}

/// H + damping, up to its scale, from its factor: R R^T with inputs in their natural order, of which only the upper
/// triangle is there. @throws error when there is no factor.
template <class Scalar>
basic_matrix<Scalar> damped_hessian(basic_hessian_factor<Scalar> const& f, executor_ref executor = {}) {
    index_t const n = f.r.rows();
    if (n == 0) {
        raise(error("hessian", f.failure));
    }
    basic_matrix<Scalar> product = zero_matrix<Scalar>(n, n); // in the order of the sweep
    executor.for_pieces(n, 64, [&](index_t begin, index_t end) {
        nn::products<Scalar>::add(end - begin, n, n - begin, 1, {&f.r(begin, begin), n},
                                  simd::strided<Scalar>{f.r.data() + begin, n}.transpose(), &product(begin, 0), n);
    });
    basic_matrix<Scalar> h = zero_matrix<Scalar>(n, n);
    for (index_t i = 0; i < n; ++i) {
        for (index_t j = 0; j < n; ++j) {
            auto const [a, b] = std::minmax(f.order[static_cast<std::size_t>(i)], f.order[static_cast<std::size_t>(j)]);
            h(a, b) = product(i, j);
        }
    }
    return h;
}

#if defined(DETENT_COMPILED)
extern template hessian_factor factor<double>(hessian const&, factor_options, std::vector<std::int32_t>, executor_ref);
extern template hessian_factor factor<double>(hessian const&, factor_options, executor_ref);
extern template basic_matrix<double> damped_hessian<double>(hessian_factor const&, executor_ref);
#endif

} // namespace detent::inline DETENT_ABI

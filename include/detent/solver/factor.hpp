// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <string>
#include <vector>

#include "detent/solver/hessian.hpp"

namespace detent::inline DETENT_ABI {

/// A Hessian made ready for a sweep over its columns: ordered, damped and factored.
struct hessian_factor {
    /// Upper triangular R with H + damping = R R^T, columns in the order of the sweep. Empty if no damping sufficed.
    basic_matrix<double> r;
    std::vector<std::int32_t> order; ///< column k of the sweep is input `order[k]`
    std::vector<bool> dead;          ///< by input: its diagonal element was exactly 0
    double damping = 0;              ///< relative to the mean diagonal element
    int damping_raised = 0;          ///< how many times `damping` was multiplied by 10
};

/// Orders, damps and factors `h`. The order is descending by diagonal element where `by_activation`, else natural; the
/// diagonal elements of dead inputs become 1 before their mean is taken (GPTQ's reference). Where the factorization
/// fails, `damping` grows tenfold up to 1.
///
/// H = R R^T with R *upper* triangular is an ordinary Cholesky factorization of H with its rows and columns reversed.
/// It serves in place of the factor of the inverse, which then need not be formed.
/// @throws error when `h` is not finite.
inline hessian_factor factor(hessian const& h, double damping, bool by_activation) {
    index_t const n = h.features();
    basic_vector<double> diagonal = h.diagonal();
    for (index_t j = 0; j < n; ++j) {
        if (!std::isfinite(diagonal(j))) {
            throw error("hessian", "input " + std::to_string(j) + " was not finite");
        }
    }
    hessian_factor f;
    f.order.resize(static_cast<std::size_t>(n));
    std::iota(f.order.begin(), f.order.end(), 0);
    if (by_activation) {
        std::ranges::stable_sort(f.order, [&](auto a, auto b) { return diagonal(a) > diagonal(b); });
    }
    f.dead.resize(static_cast<std::size_t>(n));
    for (index_t j = 0; j < n; ++j) {
        if (diagonal(j) == 0) {
            f.dead[static_cast<std::size_t>(j)] = true;
            diagonal(j) = 1;
        }
    }
    for (f.damping = damping;; f.damping = std::clamp(10 * f.damping, 1e-3, 1.0), ++f.damping_raised) {
        double const added = f.damping * diagonal.mean();
        basic_matrix<double> reversed(n, n); // (in, in), lower triangle
        for (index_t i = 0; i < n; ++i) {
            auto const a = f.order[static_cast<std::size_t>(n - 1 - i)];
            for (index_t j = 0; j < i; ++j) {
                reversed(i, j) = h(a, f.order[static_cast<std::size_t>(n - 1 - j)]);
            }
            reversed(i, i) = diagonal(a) + added;
        }
        Eigen::LLT<Eigen::Ref<basic_matrix<double>>> const llt(reversed);
        if (llt.info() == Eigen::Success && reversed.diagonal().allFinite()) {
            f.r = reversed.triangularView<Eigen::Lower>();
            f.r = f.r.reverse().eval();
            return f;
        }
        if (!(f.damping < 1)) { // also where it is no number
            return f;
        }
    }
}

} // namespace detent::inline DETENT_ABI

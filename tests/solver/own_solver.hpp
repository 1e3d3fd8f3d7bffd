// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "detent/evidence/factor.hpp"
#include "detent/solver/problem.hpp"
#include "detent/solver/rtn.hpp"

namespace detent::test {

/// Starts from the nearest numbers and chooses one weight after the other anew, given all others of its row, a few
/// times over; `h` (in, in) has both triangles.
inline solution descend(matrix_view w, basic_matrix<double> const& h, int sweeps, problem const& p,
                        executor_ref executor) {
    solution s = rtn{}.solve(w, {}, p, executor);
    basic_matrix<double> missed = (decode(s) - w).cast<double>(); // (out, in)
    executor.for_each(w.rows(), [&](index_t row) {
        auto d = missed.row(row);
        for (int sweep = 0; sweep < sweeps; ++sweep) {
            for (index_t j = 0; j < w.cols(); ++j) {
                double const others = d.dot(h.row(j)) - d(j) * h(j, j);
                auto const wanted = static_cast<float>(static_cast<double>(w(row, j)) - others / h(j, j));
                tile_scale const scale = s.scale_at(row, j);
                code c = 0;
                float number = 0;
                p.round(1, &wanted, &scale.scale, &scale.zero, &c, &number);
                double const now = static_cast<double>(number) - static_cast<double>(w(row, j));
                auto const cost = [&](double e) { return e * (e * h(j, j) + 2 * others); };
                if (cost(now) < cost(d(j))) {
                    d(j) = now;
                    s.code_at(row, j) = c;
                }
            }
        }
    });
    s.report.loss = 0.5 * (missed * h).cwiseProduct(missed).sum();
    return s;
}

/// A second-order solver as a user would write one: cyclic coordinate descent on the damped Hessian of a factor.
struct coordinate_descent {
    using evidence = hessian;

    double damping = 0.01;
    int sweeps = 4;

    factor_options factoring() const { return {.damping = damping, .by_activation = false}; }

    solution solve(matrix_view w, hessian const& h, problem const& p, executor_ref executor = {}) const {
        return solve(w, factor(h, factoring(), executor), p, executor);
    }
    solution solve(matrix_view w, hessian_factor const& f, problem const& p, executor_ref executor = {}) const {
        if (f.r.size() == 0) {
            solution nearest = rtn{}.solve(w, {}, p, executor);
            f.describe(nearest.report);
            return nearest;
        }
        basic_matrix<double> h = damped_hessian(f, executor);
        h.triangularView<Eigen::StrictlyLower>() = h.transpose();
        solution s = descend(w, h, sweeps, p, executor);
        f.describe(s.report);
        return s;
    }

    friend bool operator==(coordinate_descent, coordinate_descent) = default;
};

/// The same by someone who has not heard of factors: it wants the Hessian itself.
struct descent_on_hessian {
    using evidence = hessian;

    solution solve(matrix_view w, hessian const& known, problem const& p, executor_ref executor = {}) const {
        basic_matrix<double> h = known.scale() * known.sum();
        h.triangularView<Eigen::StrictlyLower>() = h.transpose();
        h.diagonal().array() += 0.01 * h.diagonal().mean();
        return descend(w, h, 4, p, executor);
    }

    friend bool operator==(descent_on_hessian, descent_on_hessian) = default;
};

/// Needs nothing but the weights: the error of each is carried to the next of its row, whatever the inputs are.
struct error_diffusion {
    using evidence = no_evidence;

    solution solve(matrix_view w, no_evidence, problem const& p, executor_ref executor = {}) const {
        solution s = p.begin(w);
        p.fit_all(w, s, executor);
        for (index_t row = 0; row < w.rows(); ++row) {
            float carried = 0;
            for (index_t j = 0; j < w.cols(); ++j) {
                tile_scale const scale = s.scale_at(row, j);
                float const wanted = w(row, j) + carried;
                float number = 0;
                p.round(1, &wanted, &scale.scale, &scale.zero, &s.code_at(row, j), &number);
                carried = wanted - number;
            }
        }
        return s;
    }

    friend bool operator==(error_diffusion, error_diffusion) = default;
};

} // namespace detent::test

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "detent/core/half.hpp"
#include "detent/solver/asymmetric.hpp"
#include "detent/solver/factor.hpp"
#include "detent/solver/gptq.hpp"
#include "detent/solver/problem.hpp"

namespace detent::inline DETENT_ABI {

/// What makes a column of weights weak.
enum class sensitivity {
    output_error, ///< H_jj |W_j - RTN(W)_j|^2: what rounding only this column costs (OWQ)
    activation    ///< H_jj alone
};

/// The sensitivity of every column of `w` (out, in), of whole rows rounded to nearest with the range of `p`; 0 for
/// inputs that were always zero. @throws error when `h` is not finite.
inline basic_vector<double> sensitivities(matrix_view w, hessian const& h, problem const& p, sensitivity kind,
                                          executor_ref executor = {}) {
    expect_features(h.features(), w);
    basic_vector<double> const diagonal = finite_diagonal(h);
    if (kind == sensitivity::activation) {
        return diagonal;
    }
    constexpr index_t rows_per_task = 64;
    basic_matrix<double> errors = basic_matrix<double>::Zero(ceil_div(w.rows(), rows_per_task), w.cols());
    executor.for_pieces(w.rows(), rows_per_task, [&](index_t first, index_t last) {
        vector numbers(w.cols());
        std::vector<code> codes(static_cast<std::size_t>(w.cols()));
        for (index_t row = first; row < last; ++row) {
            tile_scale const s = p.fit(w.row(row), row, 0);
            vector const scales = vector::Constant(w.cols(), s.scale);
            vector const zeros = vector::Constant(w.cols(), s.zero);
            p.round(w.cols(), w.row(row).data(), scales.data(), zeros.data(), codes.data(), numbers.data());
            errors.row(first / rows_per_task) +=
                (w.row(row) - numbers.transpose()).cast<double>().cwiseAbs2();
        }
    });
    return diagonal.cwiseProduct(errors.colwise().sum().transpose());
}

/// The weak columns `weak` (out, weak) after they have made up, as well as they can, for the errors E = W_q - Q_q (out,
/// others) of all other columns: W_w + E H_qw H_ww^-1 = W_w + E R_qw R_ww^-1 for the damped H = R R^T with the weak
/// columns last. This least-squares solution is where the sweep of GPTQ leaves columns that it does not round.
inline basic_matrix<double> compensated(basic_matrix<double> weak, basic_matrix<double> const& errors,
                                        basic_matrix<double> const& r, executor_ref executor = {}) {
    index_t const others = errors.cols();
    index_t const n = weak.cols();
    DETENT_EXPECTS(r.rows() == others + n && errors.rows() == weak.rows());
    executor.for_pieces(weak.rows(), 128, [&](index_t first, index_t last) {
        basic_matrix<double> moved = basic_matrix<double>::Zero(last - first, n);
        nn::products<double>::add(last - first, n, others, 1, {errors.data() + first * others, others},
                                  {r.data() + others, r.outerStride()}, moved.data(), n);
        r.bottomRightCorner(n, n).triangularView<Eigen::Upper>().solveInPlace<Eigen::OnTheRight>(moved);
        weak.middleRows(first, last - first) += moved;
    });
    return weak;
}

/// OWQ: keeps the columns of a weight matrix whose rounding would cost most in high precision, and leaves the others to
/// any solver (Lee et al., "OWQ: Outlier-Aware Weight Quantization").
///
/// Weak columns are left out of the ranges, come last in the order of the solver and receive what its errors leave to
/// be made up for. The others then see the Hessian H_qq - H_qw H_ww^-1 H_wq, whose factor is the leading part of the
/// factor of H: `inner` solves a smaller problem and need not know. Activation order is by sensitivity, not by H_jj.
/// Groups count the columns that are left, and the solution stores weak columns last where there are groups.
template <Solver Inner = gptq<>> struct owq {
    /// Inputs of the float model too where `inner` needs them.
    using evidence = std::conditional_t<std::same_as<typename Inner::evidence, layer_inputs>, layer_inputs, hessian>;

    Inner inner = {};
    index_t columns = 0; ///< how many are weak, fewer than there are inputs; 0 is `inner` alone
    sensitivity chosen_by = sensitivity::output_error;
    bool compensate = true; ///< weak columns make up for the errors of the others; else they stay as they are
    float_format format = float_format::f16; ///< of weak columns

    /// Codes, scales and weak columns for `w` (out, in). Inputs that were always zero are never weak: where others are
    /// too few, the report says how many are missing. @throws error as `inner`; when `columns` is not between 0 and the
    /// inputs, the grid has no 0, or a weak column does not fit `format`.
    solution solve(matrix_view w, evidence const& known, problem const& p, executor_ref executor = {}) const {
        if constexpr (std::same_as<evidence, layer_inputs>) {
            return owq<decltype(inner.rounding)>{inner.rounding, columns, chosen_by, compensate, format}.solve(
                inner.correct(w, known, executor), known.hessian(), p, executor);
        } else {
            return solve_split(w, known, p, executor);
        }
    }

    friend constexpr bool operator==(owq const&, owq const&) = default;

private:
    static constexpr bool second_order = !std::same_as<typename Inner::evidence, no_evidence>;

    double damping() const {
        if constexpr (second_order) {
            return inner.damping;
        } else {
            return 0.01;
        }
    }

    bool by_sensitivity() const {
        if constexpr (requires { inner.activation_order; }) {
            return inner.activation_order;
        } else {
            return false;
        }
    }

    solution solve_split(matrix_view w, hessian const& h, problem const& p, executor_ref executor) const {
        expect_features(h.features(), w);
        if (columns < 0 || columns >= w.cols()) {
            throw error("weak columns", std::to_string(columns) + " of " + std::to_string(w.cols()) +
                                            " inputs are asked for; at least one must be left to quantize");
        }
        static_cast<void>(p.begin(w)); // complains of weights that are not finite
        if (columns == 0) {
            if constexpr (second_order) {
                return inner.solve(w, h, p, executor);
            } else {
                return inner.solve(w, {}, p, executor);
            }
        }
        if (code_of_zero(p, {1, 0}).second != 0) {
            throw error("weak columns", "need a grid that has 0");
        }
        // The inputs in descending order of sensitivity: first the weak ones.
        basic_vector<double> const diagonal = finite_diagonal(h);
        auto const ranked = order_of(sensitivities(w, h, p, chosen_by, executor), true);
        std::vector<std::int32_t> weak;
        std::vector<std::int32_t> order; // of the others
        for (auto const input : ranked) {
            bool const is_weak = std::ssize(weak) < columns && diagonal(input) > 0;
            (is_weak ? weak : order).push_back(input);
        }
        std::ranges::sort(weak); // their order among themselves changes nothing
        std::vector<std::int32_t> others = order; // in their natural order
        std::ranges::sort(others);
        if (!by_sensitivity()) {
            order = others;
        }

        hessian_factor const f = compensate ? factor_with_weak_last(h, order, weak, executor) : hessian_factor{};
        for (auto& input : order) { // from here on as positions in `others`
            input = static_cast<std::int32_t>(std::ranges::lower_bound(others, input) - others.begin());
        }
        matrix const rest = take_columns(w, others); // (out, others)
        solution solved;
        if constexpr (second_order) {
            solved = inner.solve(rest, without_weak(h, f, others, order, executor), p, executor);
        } else {
            solved = inner.solve(rest, {}, p, executor);
            solved.report.damping = f.r.size() > 0 ? f.damping : 0;
            solved.report.damping_raised = f.damping_raised;
            solved.report.fallback = f.failure; // weak columns are then not compensated
        }
        solved.report.weak_missing = columns - std::ssize(weak);

        basic_matrix<double> values = take_columns(w, weak).template cast<double>(); // (out, weak)
        if (f.r.size() > 0) {
            values = compensated(std::move(values), errors(rest, solved, order, p, executor), f.r, executor);
        }
        return join(solved, w.cols(), others, weak, values, p);
    }

    hessian_factor factor_with_weak_last(hessian const& h, std::vector<std::int32_t> order,
                                         std::vector<std::int32_t> const& weak, executor_ref executor) const {
        order.insert(order.end(), weak.begin(), weak.end());
        return factor(h, damping(), std::move(order), executor);
    }

    /// The factor for the columns that are left, in `order` of their positions in `others`; `f` is that of all.
    hessian_factor without_weak(hessian const& h, hessian_factor const& f, std::vector<std::int32_t> const& others,
                                std::vector<std::int32_t> const& order, executor_ref executor) const {
        auto const n = std::ssize(others);
        if (!compensate) {
            return factor(h.restricted_to(others), damping(), order, executor);
        }
        hessian_factor left = {.r = {},
                               .order = order,
                               .dead = {},
                               .damping = f.damping,
                               .damping_raised = f.damping_raised,
                               .failure = f.failure};
        if (f.r.size() > 0) {
            left.r = f.r.topLeftCorner(n, n);
        }
        for (auto const input : others) {
            left.dead.push_back(f.dead[static_cast<std::size_t>(input)]);
        }
        return left;
    }

    /// What rounding did to the columns that are left, `rest` (out, others), in `order`.
    static basic_matrix<double> errors(matrix const& rest, solution const& solved,
                                       std::vector<std::int32_t> const& order, problem const& p,
                                       executor_ref executor) {
        index_t const n = rest.cols();
        basic_matrix<double> e(rest.rows(), n);
        executor.for_pieces(rest.rows(), 16, [&](index_t first, index_t last) {
            vector scales(n);
            vector zeros(n);
            vector numbers(n);
            vector natural(n); // numbers in the order of `rest`
            for (index_t row = first; row < last; ++row) {
                solved.scales_of_row(row, scales.data(), zeros.data());
                p.decode(n, &solved.codes[static_cast<std::size_t>(row * n)], scales.data(), zeros.data(),
                         numbers.data());
                for (index_t k = 0; k < n; ++k) {
                    natural(solved.order.empty() ? k : solved.order[static_cast<std::size_t>(k)]) = numbers(k);
                }
                for (index_t k = 0; k < n; ++k) {
                    index_t const j = order[static_cast<std::size_t>(k)];
                    e(row, k) = static_cast<double>(rest(row, j)) - static_cast<double>(natural(j));
                }
            }
        });
        return e;
    }

    /// The code of 0 in a tile, and the number it stands for.
    static std::pair<code, float> code_of_zero(problem const& p, tile_scale s) {
        float const zero = 0;
        std::pair<code, float> answer;
        p.round(1, &zero, &s.scale, &s.zero, &answer.first, &answer.second);
        return answer;
    }

    /// The solution for all `in` inputs from that of the others and the numbers (out, weak) of the weak ones.
    solution join(solution const& solved, index_t in, std::vector<std::int32_t> const& others,
                  std::vector<std::int32_t> const& weak, basic_matrix<double> const& values, problem const& p) const {
        auto const n = std::ssize(others);
        index_t const out = solved.shape.rows;
        bool const grouped = solved.tile.cols < n;
        extents const tile{solved.tile.rows, grouped ? solved.tile.cols : in};
        solution whole{.shape = {out, in},
                       .tile = tile,
                       .scales = {{out, in}, tile, solved.scales.format, !solved.scales.zeros.empty()},
                       .codes = std::vector<code>(static_cast<std::size_t>(out * in)),
                       .order = {},
                       .weak = {},
                       .report = solved.report};
        std::vector<std::int32_t> stored(static_cast<std::size_t>(n)); // where stored column k of `solved` goes
        std::vector<std::int32_t> weak_at;
        if (grouped) {
            for (index_t k = 0; k < n; ++k) {
                auto const j = solved.order.empty() ? k : solved.order[static_cast<std::size_t>(k)];
                whole.order.push_back(others[static_cast<std::size_t>(j)]);
                stored[static_cast<std::size_t>(k)] = static_cast<std::int32_t>(k);
            }
            for (auto const input : weak) {
                weak_at.push_back(static_cast<std::int32_t>(whole.order.size()));
                whole.order.push_back(input);
            }
        } else {
            stored = others;
            weak_at = weak;
        }
        for (index_t i = 0; i < whole.scales.tiles.rows; ++i) {
            for (index_t j = 0; j < whole.scales.tiles.cols; ++j) {
                bool const all_weak = j >= solved.scales.tiles.cols;
                whole.scales.set(i, j, all_weak ? tile_scale{store(solved.scales.format, 1)} : solved.scales.at(i, j));
            }
        }
        whole.weak = weak_columns(weak_at, out, format);
        for (index_t row = 0; row < out; ++row) {
            for (index_t k = 0; k < n; ++k) {
                whole.code_at(row, stored[static_cast<std::size_t>(k)]) = solved.code_at(row, k);
            }
            for (index_t k = 0; k < whole.weak.count(); ++k) {
                index_t const at = weak_at[static_cast<std::size_t>(k)];
                whole.code_at(row, at) = code_of_zero(p, whole.scale_at(row, at)).first;
                auto const value = static_cast<float>(values(row, k));
                whole.weak.set(k, row, value);
                if (!std::isfinite(whole.weak.at(k, row))) {
                    throw error("weak columns", "the weight " + std::to_string(value) + " of row " +
                                                    std::to_string(row) + " is too large for their format");
                }
            }
        }
        return whole;
    }
};

} // namespace detent::inline DETENT_ABI

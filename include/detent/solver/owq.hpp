// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <numeric>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "detent/core/finite.hpp"
#include "detent/core/half.hpp"
#include "detent/evidence/factor.hpp"
#include "detent/nn/products.hpp"
#include "detent/nn/triangular.hpp"
#include "detent/solver/asymmetric.hpp"
#include "detent/solver/gptq.hpp"
#include "detent/solver/solver.hpp"

namespace detent::inline DETENT_ABI {

/// What makes a column of weights weak.
enum class sensitivity {
    output_error, ///< H_jj |W_j - RTN(W)_j|^2: what rounding only this column costs (OWQ)
    activation    ///< H_jj alone
};

// `Scalar`, of what does not depend on the inner solver, is the type of sensitivities and of weights that make up for
// errors, double. It is a parameter so that only programs that ask for weak columns compile this.

/// The sensitivity of every column of `w` (out, in), rounded to nearest: with the range of `p` of whole rows, or where
/// scales depend on the place, with those of its place; 0 for inputs that were always zero. @throws error when `h` is
/// not finite, or a sensitivity is not.
template <class Scalar = double>
basic_vector<Scalar> sensitivities(matrix_view w, hessian const& h, problem const& p, sensitivity kind,
                                   executor_ref executor = {}) {
    expect_features(h.features(), w);
    basic_vector<Scalar> diagonal = finite_diagonal(h);
    if (kind == sensitivity::activation) {
        return diagonal;
    }
    solution given; // what fits the place of a column, whatever the columns beside it
    if (p.placed()) {
        given = p.begin(w);
        p.fit_all(w, given, executor);
    }
    constexpr index_t rows_per_task = 64;
    basic_matrix<Scalar> errors; // (task, in)
    errors.setZero(ceil_div(w.rows(), rows_per_task), w.cols());
    executor.for_pieces(w.rows(), rows_per_task, [&](index_t first, index_t last) {
        auto const in = static_cast<std::size_t>(w.cols());
        std::vector<float> scales(in);
        std::vector<float> zeros(in);
        std::vector<float> numbers(in);
        std::vector<code> codes(in);
        Scalar* const sums = &errors(first / rows_per_task, 0);
        for (index_t row = first; row < last; ++row) {
            if (p.placed()) {
                given.scales_of_row(row, scales.data(), zeros.data());
            } else {
                tile_scale const s = p.fit(middle_rows(w, row, 1), {row, 0});
                std::fill(scales.begin(), scales.end(), s.scale);
                std::fill(zeros.begin(), zeros.end(), s.zero);
            }
            float const* const weights = w.data() + row * w.outerStride();
            p.round(w.cols(), weights, scales.data(), zeros.data(), codes.data(), numbers.data());
            for (std::size_t j = 0; j < in; ++j) {
                auto const missed = static_cast<Scalar>(weights[j] - numbers[j]);
                sums[j] += missed * missed;
            }
        }
    });
    for (index_t j = 0; j < w.cols(); ++j) {
        Scalar sum = 0;
        for (index_t task = 0; task < errors.rows(); ++task) {
            sum += errors(task, j);
        }
        diagonal(j) *= sum;
        if (!is_finite(diagonal(j))) { // which cannot be put in order
            raise(error("weak columns", "the sensitivity of input " + std::to_string(j) +
                                            " is not finite; are weights or inputs too large?"));
        }
    }
    return diagonal;
}

/// The weak columns `weak` (out, weak) after they have made up, as well as they can, for the errors E = W_q - Q_q (out,
/// others) of all other columns: W_w + E H_qw H_ww^-1 = W_w + E R_qw R_ww^-1 for the damped H = R R^T with the weak
/// columns last. This least-squares solution is where the sweep of GPTQ leaves columns that it does not round.
template <class Scalar>
basic_matrix<Scalar> compensated(basic_matrix<Scalar> weak, basic_matrix<Scalar> const& errors,
                                 basic_matrix<Scalar> const& r, executor_ref executor = {}) {
    index_t const others = errors.cols();
    index_t const n = weak.cols();
    index_t const all = others + n;
    expect_valid(r.rows() == all && errors.rows() == weak.rows(), "weak columns", "and errors do not fit the factor");
    executor.for_pieces(weak.rows(), 128, [&](index_t first, index_t last) {
        basic_matrix<Scalar> moved; // (rows, weak)
        moved.setZero(last - first, n);
        nn::products<Scalar>::add(last - first, n, others, 1, {errors.data() + first * others, others},
                                  {r.data() + others, all}, moved.data(), n);
        nn::divide_by_upper(last - first, n, moved.data(), n, r.data() + others * all + others, all);
        weak.middleRows(first, last - first) += moved;
    });
    return weak;
}

/// Which inputs are weak and in which order the others are solved for.
struct weak_split {
    std::vector<std::int32_t> weak;   ///< ascending; their order among themselves changes nothing
    std::vector<std::int32_t> others; ///< ascending
    std::vector<std::int32_t> order;  ///< positions in `others`, in the order of the solver
};

/// Makes the `columns` most sensitive inputs weak, of those whose diagonal element of the Hessian is not 0; the others
/// are solved for by descending sensitivity where `by_sensitivity`, else in their natural order.
template <class Scalar>
weak_split split_weak(basic_vector<Scalar> const& diagonal, basic_vector<Scalar> const& sensitivity_of, index_t columns,
                      bool by_sensitivity) {
    dependent<weak_split, Scalar> parts;
    dependent<std::vector<std::int32_t>, Scalar> ranked; // the others by descending sensitivity
    for (auto const input : order_of(sensitivity_of, true)) {
        bool const is_weak = std::ssize(parts.weak) < columns && diagonal(input) > 0;
        (is_weak ? parts.weak : ranked).push_back(input);
    }
    std::ranges::sort(parts.weak);
    parts.others = ranked;
    std::ranges::sort(parts.others);
    for (auto const input : by_sensitivity ? ranked : parts.others) {
        auto const position = std::ranges::lower_bound(parts.others, input) - parts.others.begin();
        parts.order.push_back(static_cast<std::int32_t>(position));
    }
    return parts;
}

/// The Hessian factored as `options` say, with weak columns last.
template <class Scalar = double>
hessian_factor factor_with_weak_last(hessian const& h, weak_split const& parts, factor_options options,
                                     executor_ref executor = {}) {
    dependent<std::vector<std::int32_t>, Scalar> order;
    for (auto const position : parts.order) {
        order.push_back(parts.others[static_cast<std::size_t>(position)]);
    }
    order.insert(order.end(), parts.weak.begin(), parts.weak.end());
    return factor(h, options, std::move(order), executor);
}

/// The factor for the columns that are left; `f` is that of all.
template <class Scalar = double> hessian_factor without_weak(hessian_factor const& f, weak_split const& parts) {
    dependent<hessian_factor, Scalar> left = {.r = {},
                                              .order = parts.order,
                                              .dead = {},
                                              .damping = f.damping,
                                              .damping_raised = f.damping_raised,
                                              .failure = f.failure};
    if (f.r.size() > 0) {
        index_t const n = std::ssize(parts.others);
        left.r.resize(n, n);
        for (index_t row = 0; row < n; ++row) {
            std::copy_n(&f.r(row, 0), n, &left.r(row, 0));
        }
    }
    for (auto const input : parts.others) {
        left.dead.push_back(f.dead[static_cast<std::size_t>(input)]);
    }
    return left;
}

/// What rounding did to the columns that are left, `rest` (out, others), in `order`.
template <class Scalar = double>
basic_matrix<Scalar> rounding_errors(matrix const& rest, solution const& solved,
                                     std::vector<std::int32_t> const& order) {
    basic_matrix<Scalar> missed(rest.rows(), rest.cols()); // (out, others), in `order`
    matrix const numbers = solved.map.back(decode(solved));
    for (index_t row = 0; row < rest.rows(); ++row) {
        for (index_t k = 0; k < rest.cols(); ++k) {
            auto const col = order[static_cast<std::size_t>(k)];
            missed(row, k) = static_cast<Scalar>(rest(row, col) - numbers(row, col));
        }
    }
    return missed;
}

/// Stores the numbers (out, weak) of the columns `at` as `format`, and codes that stand for 0 there. @throws error when
/// a number does not fit.
template <class Scalar>
void put_weak(solution& whole, std::vector<std::int32_t> at, basic_matrix<Scalar> const& values, float_format format) {
    dependent<std::vector<float>, Scalar> const& table = whole.table;
    whole.weak = weak_columns(std::move(at), whole.shape.rows, format);
    for (index_t k = 0; k < whole.weak.count(); ++k) {
        index_t const col = whole.weak.columns()[static_cast<std::size_t>(k)];
        for (index_t row = 0; row < whole.shape.rows; ++row) {
            auto const zero = std::ranges::find(table, whole.scale_at(row, col).zero) - table.begin();
            whole.code_at(row, col) = static_cast<code>(zero);
            auto const value = static_cast<float>(values(row, k));
            whole.weak.set(k, row, value);
            if (!is_finite(whole.weak.at(k, row))) {
                raise(error("weak columns", "the weight " + std::to_string(value) + " of row " + std::to_string(row) +
                                                " is too large for their format"));
            }
        }
    }
}

/// The solution for all `in` inputs from that of the others and the numbers (out, weak) of the weak ones, which are
/// stored as `format`. @throws error when a number does not fit.
template <class Scalar>
solution join_weak(solution const& solved, index_t in, weak_split const& parts, basic_matrix<Scalar> const& values,
                   float_format format) {
    auto const n = std::ssize(parts.others);
    index_t const out = solved.shape.rows;
    bool const in_place = !solved.tile_of.empty();
    bool const weak_last = !in_place && solved.tile.cols < n;
    extents const tile{solved.tile.rows, in_place || weak_last ? solved.tile.cols : in};
    dependent<solution, Scalar> whole{.shape = {out, in},
                                      .tile = tile,
                                      .scales = {{out, in}, tile, solved.scales.format, !solved.scales.zeros.empty()},
                                      .table = solved.table,
                                      .codes = std::vector<code>(static_cast<std::size_t>(out * in)),
                                      .input = solved.input,
                                      .report = solved.report};
    std::vector<std::int32_t> at = parts.others; // where column k of `solved` goes
    std::vector<std::int32_t> weak_at = parts.weak;
    if (weak_last) {
        dependent<std::vector<std::int32_t>, Scalar> order = parts.others;
        if (auto const* const inner_order = solved.map.order()) {
            for (std::size_t k = 0; k < order.size(); ++k) {
                order[k] = parts.others[static_cast<std::size_t>((*inner_order)[k])];
            }
        }
        order.insert(order.end(), parts.weak.begin(), parts.weak.end());
        whole.map = input_map(permutation{std::move(order)}, in);
        std::iota(at.begin(), at.end(), 0);
        std::iota(weak_at.begin(), weak_at.end(), static_cast<std::int32_t>(n));
    }
    for (index_t i = 0; i < whole.scales.tiles.rows; ++i) {
        for (index_t j = 0; j < whole.scales.tiles.cols; ++j) {
            bool const all_weak =
                j >= solved.scales.tiles.cols || solved.first_of_tile(j) == solved.first_of_tile(j + 1);
            whole.scales.set(i, j, all_weak ? tile_scale{store(solved.scales.format, 1)} : solved.scales.at(i, j));
        }
    }
    for (index_t row = 0; row < out; ++row) {
        for (index_t k = 0; k < n; ++k) {
            whole.code_at(row, at[static_cast<std::size_t>(k)]) = solved.code_at(row, k);
        }
    }
    put_weak(whole, std::move(weak_at), values, format);
    return whole;
}

/// OWQ: keeps the columns of a weight matrix whose rounding would cost most in high precision, and leaves the others to
/// any solver (Lee et al., "OWQ: Outlier-Aware Weight Quantization").
///
/// Weak columns are left out of the ranges, come last in the order of the solver and receive what its errors leave to
/// be made up for. The others then see the Hessian H_qq - H_qw H_ww^-1 H_wq, whose factor is the leading part of the
/// factor of H: `inner` solves a smaller problem and need not know. A second-order solver gets that factor, any other
/// that needs a Hessian gets what the factor stands for. Activation order is by sensitivity, not by H_jj.
/// Groups count the columns that are left, and weak columns are then stored last; but where scales depend on their
/// place, every column stays in its tile.
template <Solver Inner = gptq<>> struct owq {
    static_assert(!detent::wraps<wrapping::map, Inner>,
                  "weak columns are taken out of the mapped matrix: write transformed<T, owq<Inner>>");
    static_assert(!detent::wraps<wrapping::weak_columns, Inner>, "weak columns are taken out once: owq in owq");
    static_assert(SecondOrderSolver<Inner> || !FactorsHessian<Inner>,
                  "this solver has factoring(), so owq hands it a factor: it needs solve(matrix_view w, hessian_factor "
                  "const& f, problem const& p, executor_ref executor) const too, as SecondOrderSolver says");
    static constexpr wrapping wraps = wrapping::weak_columns;

    using evidence = evidence_around<Inner>;

    Inner inner = {};
    index_t columns = 0; ///< how many are weak, fewer than there are inputs; 0 is `inner` alone
    sensitivity chosen_by = sensitivity::output_error;
    bool compensate = true; ///< weak columns make up for the errors of the others; else they stay as they are
    float_format format = float_format::f16; ///< of weak columns

    /// Codes, scales and weak columns for `w` (out, in). Inputs that were always zero are never weak: where others are
    /// too few, the report says how many are missing. @throws error as `inner`; when `columns` is not between 0 and the
    /// inputs, no token was seen, the grid has no 0, or a weak column does not fit `format`.
    solution solve(matrix_view w, evidence const& known, problem const& p, executor_ref executor = {}) const {
        if constexpr (CorrectingSolver<Inner>) {
            return owq<decltype(inner.after_correction())>{inner.after_correction(), columns, chosen_by, compensate,
                                                           format}
                .solve(inner.correct(w, known, executor), known.hessian(), p, executor);
        } else {
            return solve_split(w, known, p, executor);
        }
    }

    friend bool operator==(owq const&, owq const&) = default;

private:
    solution solve_split(matrix_view w, evidence const& known, problem const& p, executor_ref executor) const {
        hessian const& h = known;
        expect_features(h.features(), w);
        if (columns < 0 || columns >= w.cols()) {
            raise(error("weak columns", std::to_string(columns) + " of " + std::to_string(w.cols()) +
                                            " inputs are asked for; at least one must be left to quantize"));
        }
        problem::expect_weights(w);
        if (columns == 0) {
            return solve_with(inner, w, known, p, executor);
        }
        if (!contains_zero(p)) {
            raise(error("weak columns", "need a grid that has 0"));
        }
        factor_options const factored = factoring_of(inner);
        if (!factored.or_rtn) {
            h.expect_seen();
        }
        weak_split const parts = split_weak(finite_diagonal(h), sensitivities(w, h, p, chosen_by, executor), columns,
                                            factored.by_activation);
        hessian_factor const f = compensate ? factor_with_weak_last(h, parts, factored, executor) : hessian_factor{};
        matrix const rest = take_columns(w, parts.others); // (out, others)
        solution solved = solve_rest(rest, known, f, parts, for_columns(p, shape_of(w), parts.others), executor);
        solved.report.weak_missing = columns - std::ssize(parts.weak);

        basic_matrix<double> values = to_double(take_columns(w, parts.weak)); // (out, weak)
        if (f.r.size() > 0) {
            values = compensated(std::move(values), rounding_errors(rest, solved, parts.order), f.r, executor);
        }
        return join_weak(solved, w.cols(), parts, values, format);
    }

    /// The solution of `inner` for the columns that are left, `rest` (out, others); `f` is the factor of all.
    solution solve_rest(matrix const& rest, evidence const& known, hessian_factor const& f, weak_split const& parts,
                        problem const& p, executor_ref executor) const {
        if constexpr (SecondOrderSolver<Inner>) {
            return inner.solve(
                rest,
                compensate ? without_weak(f, parts)
                           : factor(known.restricted_to(parts.others), factoring_of(inner), parts.order, executor),
                p, executor);
        } else {
            [[maybe_unused]] bool const shrunk = compensate && f.r.size() > 0;
            solution solved;
            if constexpr (std::same_as<typename Inner::evidence, no_evidence>) {
                solved = inner.solve(rest, {}, p, executor);
            } else {
                auto left = known.restricted_to(parts.others);
                if (shrunk) { // with what weak columns make up for
                    left.replace_hessian(damped_hessian(without_weak(f, parts), executor));
                }
                solved = solve_with(inner, rest, left, p, executor);
            }
            solved.report.damping = f.r.size() > 0 ? f.damping : 0;
            solved.report.damping_raised = f.damping_raised;
            solved.report.fallback = f.failure; // weak columns are then not compensated
            return solved;
        }
    }
};

#if defined(DETENT_COMPILED)
extern template basic_vector<double> sensitivities<double>(matrix_view, hessian const&, problem const&, sensitivity,
                                                           executor_ref);
extern template basic_matrix<double> compensated<double>(basic_matrix<double>, basic_matrix<double> const&,
                                                         basic_matrix<double> const&, executor_ref);
extern template weak_split split_weak<double>(basic_vector<double> const&, basic_vector<double> const&, index_t, bool);
extern template hessian_factor factor_with_weak_last<double>(hessian const&, weak_split const&, factor_options,
                                                             executor_ref);
extern template hessian_factor without_weak<double>(hessian_factor const&, weak_split const&);
extern template basic_matrix<double> rounding_errors<double>(matrix const&, solution const&,
                                                             std::vector<std::int32_t> const&);
extern template solution join_weak<double>(solution const&, index_t, weak_split const&, basic_matrix<double> const&,
                                           float_format);
#endif

} // namespace detent::inline DETENT_ABI

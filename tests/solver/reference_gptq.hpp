// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <numeric>
#include <vector>

#include <Eigen/LU>

#include "detent/core/eigen.hpp"
#include "detent/solver/problem.hpp"

namespace detent::test {

/// What GPTQ chose for every weight, by input.
struct reference_answer {
    Eigen::Matrix<int, Eigen::Dynamic, Eigen::Dynamic> codes; // (out, in)
    std::vector<std::vector<tile_scale>> scales;              // (out, in)
    Eigen::MatrixXd weak;                                     // (out, weak), columns that were not rounded
    double loss = 0;
};

struct reference_options {
    double damping = 0.01;
    bool activation_order = false;
    bool static_groups = false;
    index_t stale_columns = 0;
    std::vector<index_t> order = {}; ///< of the sweep; empty for GPTQ's own
    index_t weak = 0;                ///< the last columns of the sweep are not rounded (OWQ)
};

/// GPTQ as published (Frantar et al., algorithm 1), column by column and in double: the upper Cholesky factor U of the
/// inverse Hessian, and the error of each column subtracted from all later ones at once.
/// `h` is the Hessian (in, in).
inline reference_answer reference_gptq(matrix const& w, Eigen::MatrixXd h, problem const& p,
                                       reference_options const& options) {
    index_t const out = w.rows();
    index_t const in = w.cols();
    index_t const rounded = in - options.weak;
    extents const tile = p.tile({out, rounded});
    std::vector<index_t> order = options.order;
    if (order.empty()) {
        order.resize(static_cast<std::size_t>(in));
        std::iota(order.begin(), order.end(), 0);
    }
    if (options.activation_order && options.order.empty()) {
        std::ranges::stable_sort(order, [&](index_t a, index_t b) { return h(a, a) > h(b, b); });
    }
    Eigen::MatrixXd original = w.cast<double>();
    for (index_t j = 0; j < in; ++j) {
        if (h(j, j) == 0) {
            h(j, j) = 1; // rounded to nearest
        }
    }
    h.diagonal().array() += options.damping * h.diagonal().mean();

    reference_answer answer;
    answer.codes.setConstant(out, in, -1);
    answer.scales.assign(static_cast<std::size_t>(out), std::vector<tile_scale>(static_cast<std::size_t>(in)));
    auto const scale_of = [&](index_t row, index_t input) -> tile_scale& {
        return answer.scales[static_cast<std::size_t>(row)][static_cast<std::size_t>(input)];
    };
    // Fits the tiles of the group that starts at column `begin` of `weights`, whose columns are inputs[0], ...
    auto const fit = [&](Eigen::MatrixXd const& weights, index_t begin, std::vector<index_t> const& inputs) {
        index_t const end = std::min(rounded, begin + tile.cols);
        for (index_t row = 0; row < out; row += tile.rows) {
            index_t const last = std::min(out, row + tile.rows);
            matrix const group = weights.block(row, begin, last - row, end - begin).cast<float>();
            tile_scale const s = p.fit(group, {row, begin});
            for (index_t r = row; r < last; ++r) {
                for (index_t c = begin; c < end; ++c) {
                    scale_of(r, inputs[static_cast<std::size_t>(c)]) = s;
                }
            }
        }
    };
    bool const fit_on_the_way = tile.cols < rounded && !options.static_groups;
    if (!fit_on_the_way) {
        std::vector<index_t> natural(order.begin(), order.begin() + rounded);
        std::ranges::sort(natural);
        for (index_t begin = 0; begin < rounded; begin += tile.cols) {
            fit(original(Eigen::all, natural), begin, natural);
        }
    }

    Eigen::MatrixXd weights = original(Eigen::all, order); // (out, in), in the order of the sweep
    Eigen::MatrixXd const ordered = h(order, order);
    Eigen::MatrixXd const inverse = ordered.inverse();
    Eigen::MatrixXd const u = Eigen::LLT<Eigen::MatrixXd>(inverse).matrixU();
    Eigen::MatrixXd known = weights; // what scales are fitted to
    for (index_t c = 0; c < rounded; ++c) {
        if (options.stale_columns == 0 || c % options.stale_columns == 0) {
            known = weights;
        }
        if (fit_on_the_way && c % tile.cols == 0) {
            fit(known, c, order);
        }
        index_t const input = order[static_cast<std::size_t>(c)];
        Eigen::VectorXd error(out);
        for (index_t row = 0; row < out; ++row) {
            auto const t = static_cast<float>(weights(row, c));
            code chosen = 0;
            float number = 0;
            p.round(1, &t, &scale_of(row, input).scale, &scale_of(row, input).zero, &chosen, &number);
            answer.codes(row, input) = chosen;
            error(row) = (weights(row, c) - number) / u(c, c);
        }
        answer.loss += 0.5 * error.squaredNorm();
        weights.rightCols(in - c) -= error * u.row(c).tail(in - c);
    }
    answer.weak = weights.rightCols(options.weak);
    return answer;
}

} // namespace detent::test

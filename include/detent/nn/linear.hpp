// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>

#include "detent/core/eigen.hpp"
#include "detent/core/error.hpp"
#include "detent/core/executor.hpp"
#include "detent/core/stopwatch.hpp"
#include "detent/nn/products.hpp"
#include "detent/nn/token_sums.hpp"

namespace detent::inline DETENT_ABI::nn {

/// y = x w^T + bias. `inputs` x is (token, in), `w` (out, in), `bias` has one entry per output, or none; the result is
/// (token, out).
template <class X>
basic_matrix<scalar_of<X>> linear(Eigen::MatrixBase<X> const& inputs, basic_matrix_view<scalar_of<X>> w,
                                  basic_vector<scalar_of<X>> const& bias = {}, executor_ref executor = {}) {
    basic_matrix_view<scalar_of<X>> const x(inputs);
    expect_valid(x.cols() == w.cols() && (bias.size() == w.rows() || bias.size() == 0), "linear",
                 "has inputs or a bias that do not fit the weights");
    stopwatch::section const timed(executor.watch(), work_kind::products);
    // Tiles of y large enough for a product at full speed. A single token only reads the weights once, so there a tile
    // is as many of them as pay for starting a thread.
    index_t const tokens = std::min<index_t>(x.rows(), x.rows() > 1024 ? 1024 : 256);
    index_t const outs =
        x.rows() == 1 ? std::max<index_t>(64, (index_t{1} << 18) / std::max<index_t>(w.cols(), 1)) : 512;
    index_t const tiles_across = ceil_div(w.rows(), outs);

    basic_matrix<scalar_of<X>> y(x.rows(), w.rows()); // (token, out)
    executor.for_each(x.rows() == 0 ? 0 : ceil_div(x.rows(), tokens) * tiles_across, [&](index_t tile) {
        index_t const t = tile / tiles_across * tokens;
        index_t const o = tile % tiles_across * outs;
        auto const w_tile = w.middleRows(o, std::min(outs, w.rows() - o));   // (out, in)
        auto const x_tile = x.middleRows(t, std::min(tokens, x.rows() - t)); // (token, in)
        auto y_tile = y.block(t, o, x_tile.rows(), w_tile.rows());           // (token, out)
        if (bias.size() > 0) {
            y_tile.rowwise() = bias.segment(o, w_tile.rows()).transpose();
        } else {
            y_tile.setZero();
        }
        if (x.rows() == 1) {
            y_tile.row(0).transpose().noalias() += w_tile * x_tile.row(0).transpose();
        } else if (x.rows() <= 16) { // too few to pay for copies of the weights
            y_tile.noalias() += x_tile * w_tile.transpose();
        } else {
            add_product(y_tile, x_tile, w_tile.transpose());
        }
    });
    return y;
}

/// The gradient g w of `linear` with respect to its inputs, (token, in); `gradients` g is that with respect to its
/// result, (token, out), and `w` is (out, in).
template <class G>
basic_matrix<scalar_of<G>> linear_input_gradient(Eigen::MatrixBase<G> const& gradients,
                                                 basic_matrix_view<scalar_of<G>> w, executor_ref executor = {}) {
    basic_matrix_view<scalar_of<G>> const g(gradients);
    expect_valid(g.cols() == w.rows(), "gradient", "has not one column for each output");
    stopwatch::section const timed(executor.watch(), work_kind::products);
    index_t const tokens = 256, ins = 512; // of a tile
    index_t const tiles_across = ceil_div(w.cols(), ins);

    basic_matrix<scalar_of<G>> x_gradient(g.rows(), w.cols()); // (token, in)
    executor.for_each(ceil_div(g.rows(), tokens) * tiles_across, [&](index_t tile) {
        index_t const t = tile / tiles_across * tokens, rows = std::min(tokens, g.rows() - t);
        index_t const i = tile % tiles_across * ins, cols = std::min(ins, w.cols() - i);
        auto tile_gradient = x_gradient.block(t, i, rows, cols);
        tile_gradient.setZero();
        add_product(tile_gradient, g.middleRows(t, rows), w.middleCols(i, cols));
    });
    return x_gradient;
}

/// Adds to `w_gradient`, (out, in), the gradient g^T x of `linear` with respect to its weights; `gradients` g is that
/// with respect to its result, (token, out), and `x` are its inputs, (token, in), or some columns of them for the
/// gradient of some columns.
template <class G>
void add_linear_weight_gradient(Eigen::MatrixBase<G> const& gradients, basic_matrix_view<scalar_of<G>> x,
                                basic_matrix_ref<scalar_of<G>> w_gradient, executor_ref executor = {}) {
    basic_matrix_view<scalar_of<G>> const g(gradients);
    expect_valid(g.rows() == x.rows() && shape_of(w_gradient) == (extents{g.cols(), x.cols()}), "gradient",
                 "of weights does not fit that of outputs and the inputs");
    stopwatch::section const timed(executor.watch(), work_kind::products);
    index_t const outs = 128, ins = 256; // of a tile, each of which is summed over all tokens
    index_t const tiles_across = ceil_div(x.cols(), ins);

    executor.for_each(ceil_div(g.cols(), outs) * tiles_across, [&](index_t tile) {
        index_t const o = tile / tiles_across * outs, rows = std::min(outs, g.cols() - o);
        index_t const i = tile % tiles_across * ins, cols = std::min(ins, x.cols() - i);
        add_product(w_gradient.block(o, i, rows, cols), g.middleCols(o, rows).transpose(), x.middleCols(i, cols));
    });
}

/// Adds to `bias_gradient` the gradient of `linear` with respect to its bias, the sum of the rows of `gradients` g,
/// (token, out).
template <class G>
void add_linear_bias_gradient(Eigen::MatrixBase<G> const& gradients, basic_vector<scalar_of<G>>& bias_gradient,
                              executor_ref executor = {}) {
    basic_matrix_view<scalar_of<G>> const g(gradients);
    expect_valid(bias_gradient.size() == g.cols(), "gradient", "of the bias has not one entry for each output");
    add_over_tokens(bias_gradient, g.rows(), executor,
                    [&](index_t t, index_t begin, index_t count) { return g.row(t).segment(begin, count).array(); });
}

} // namespace detent::inline DETENT_ABI::nn

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "detent/solver/output_search.hpp"
#include "solver/correlated_inputs.hpp"

namespace detent::test {

/// The mean over tokens of |W x~ - Q x|^2, every token passed through both layers in double. Inputs are (token, in).
inline double error_by_tokens(matrix_view w, matrix_view floats, matrix_view q, matrix_view x) {
    basic_matrix<double> const wanted = floats.cast<double>() * w.cast<double>().transpose(); // (token, out)
    basic_matrix<double> const got = x.cast<double>() * q.cast<double>().transpose();
    return (wanted - got).squaredNorm() / static_cast<double>(x.rows());
}

/// The number that rounding makes of a weight.
inline float rounded(problem const& p, float weight, tile_scale t) {
    code c = 0;
    float number = 0;
    p.round(1, &weight, &t.scale, &t.zero, &c, &number);
    return number;
}

/// The numbers (out, in) of a solution in natural order, code by code.
inline matrix numbers_of(solution const& s, problem const& p) {
    matrix q(s.shape.rows, s.shape.cols);
    for (index_t row = 0; row < q.rows(); ++row) {
        for (index_t col = 0; col < q.cols(); ++col) {
            tile_scale const t = s.scale_at(row, col);
            q(row, s.map.empty() ? col : (*s.map.order())[static_cast<std::size_t>(col)]) =
                (p.table()[s.code_at(row, col)] - t.zero) * t.scale;
        }
    }
    return q;
}

/// What rounding to nearest makes of `w` in the range of the problem itself.
inline matrix rounded_in_own_range(matrix const& w, problem const& p) {
    solution s = p.begin(w);
    p.fit_all(w, s, {});
    return matrix::NullaryExpr(w.rows(), w.cols(),
                               [&](index_t row, index_t col) { return rounded(p, w(row, col), s.scale_at(row, col)); });
}

/// The same inputs, each moved a little.
inline matrix moved(matrix const& x, float by, unsigned seed) {
    return x + by * x.cwiseAbs().mean() * random_matrix(x.rows(), x.cols(), seed);
}

/// What a layer knows of inputs `x` that were `floats`.
inline layer_inputs inputs_of(matrix const& x, matrix const& floats) {
    layer_inputs known(x.cols());
    known.add(x, floats);
    return known;
}
inline layer_inputs inputs_of(matrix const& x) {
    layer_inputs known(x.cols());
    known.add(x);
    return known;
}

} // namespace detent::test

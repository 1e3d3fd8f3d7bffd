// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include "detent/core/eigen.hpp"
#include "detent/core/executor.hpp"

namespace detent::inline DETENT_ABI::nn {

/// Adds the sum of `terms(t, begin, count)` over all tokens t to entries begin .. begin + count - 1 of `sums`; `terms`
/// answers with an array of one row. How biases and the weights of norms get their gradients: every entry is summed in
/// double in the order of the tokens, so the number of workers changes no bit.
template <class Scalar, class Terms>
void add_over_tokens(basic_vector<Scalar>& sums, index_t tokens, executor_ref executor, Terms const& terms) {
    index_t const features_per_piece = 256;
    executor.for_pieces(sums.size(), features_per_piece, [&](index_t begin, index_t end) {
        Eigen::Array<double, 1, Eigen::Dynamic> sum = Eigen::Array<double, 1, Eigen::Dynamic>::Zero(end - begin);
        for (index_t t = 0; t < tokens; ++t) {
            sum += terms(t, begin, end - begin).template cast<double>();
        }
        sums.segment(begin, end - begin) += sum.matrix().transpose().template cast<Scalar>();
    });
}

} // namespace detent::inline DETENT_ABI::nn

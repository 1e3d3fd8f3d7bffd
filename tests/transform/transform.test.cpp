// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <vector>

#include <gtest/gtest.h>

#include "detent/transform/transform.hpp"
#include "nn/random_matrix.hpp"

namespace {

using namespace detent;

/// A transform of a user's own: makes all columns of weights as long.
struct even_columns {
    float length = 1;

    input_map fit(matrix_view w, layer_inputs const&) const {
        diagonal d;
        for (index_t k = 0; k < w.cols(); ++k) {
            d.factors.push_back(w.col(k).norm() / length);
        }
        return {std::move(d), w.cols()};
    }

    bool operator==(even_columns const&) const = default;
};

struct without_equality {
    input_map fit(matrix_view, layer_inputs const&) const { return {}; }
};
struct that_changes_itself {
    input_map fit(matrix_view, layer_inputs const&) { return {}; }
    bool operator==(that_changes_itself const&) const = default;
};
struct of_weights_alone {
    input_map fit(matrix_view) const { return {}; }
    bool operator==(of_weights_alone const&) const = default;
};
struct that_answers_a_step {
    input_map::step fit(matrix_view, layer_inputs const&) const { return block_hadamard{}; }
    bool operator==(that_answers_a_step const&) const = default;
};

static_assert(Transform<even_columns>);
static_assert(!Transform<without_equality>);
static_assert(!Transform<that_changes_itself>);
static_assert(!Transform<of_weights_alone>);
static_assert(!Transform<that_answers_a_step>);

template <Transform T> matrix mapped_weights(T const& transform, matrix const& w) {
    return transform.fit(w, layer_inputs(w.cols())).of_weights(w);
}

TEST(transform, may_be_a_users_own) {
    matrix const w = test::random_matrix(20, 12, 1); // (out, in)
    EXPECT_TRUE(mapped_weights(even_columns{3}, w).colwise().norm().isApproxToConstant(3, 1e-5F));
}

} // namespace

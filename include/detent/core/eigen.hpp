// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

// The one door to Eigen: rooms that compute on matrices include this, the others keep Eigen out.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <type_traits>
#include <vector>

#include <Eigen/Core>
#if defined(EIGEN_USE_LAPACKE)
#include <Eigen/Cholesky>
#endif

#include "detent/core/finite.hpp"
#include "detent/core/index.hpp"

static_assert(EIGEN_VERSION_AT_LEAST(3, 4, 0), "detent needs Eigen 3.4 or newer");

#if defined(DETENT_COMPILED) // which takes and gives matrices of its own Eigen, as core/abi.hpp says of flags
#define DETENT_ABI_EIGEN_SYMBOL                                                                                        \
    DETENT_ABI_PASTE(detent_compiled_has_another_Eigen_than_, EIGEN_WORLD_VERSION, _, EIGEN_MAJOR_VERSION, )
extern "C" char const DETENT_ABI_EIGEN_SYMBOL;
#endif

namespace detent::inline DETENT_ABI {

#if defined(DETENT_COMPILED)
[[gnu::used, gnu::visibility("hidden")]] inline char const* const same_eigen = &DETENT_ABI_EIGEN_SYMBOL;
#endif

/// A row-major matrix; weights are (out, in), activations (token, feature).
template <class Scalar> using basic_matrix = Eigen::Matrix<Scalar, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
/// A column.
template <class Scalar> using basic_vector = Eigen::Matrix<Scalar, Eigen::Dynamic, 1>;

/// The type of weights (out, in) and activations (token, feature).
using matrix = basic_matrix<float>;
/// A column of floats.
using float_vector = basic_vector<float>;

/// A read-only matrix or a block of one, by reference.
template <class Scalar> using basic_matrix_view = Eigen::Ref<basic_matrix<Scalar> const, 0, Eigen::OuterStride<>>;
/// A writable matrix or a block of one, by reference.
template <class Scalar> using basic_matrix_ref = Eigen::Ref<basic_matrix<Scalar>, 0, Eigen::OuterStride<>>;

/// A read-only float matrix or a block of one, by reference.
using matrix_view = basic_matrix_view<float>;
/// A writable float matrix or a block of one, by reference.
using matrix_ref = basic_matrix_ref<float>;

template <class T, class Parameter> struct dependent_type { using type = T; };
/// `T`, in a template a type that depends on its `Parameter`: what is done with it there is compiled where the template
/// is used and not where it is defined. For containers, whose functions are constexpr and would be compiled at once.
template <class T, class Parameter> using dependent = typename dependent_type<T, Parameter>::type;

/// The type of the entries of an Eigen expression.
template <class X> using scalar_of = typename std::remove_cvref_t<X>::Scalar;

/// The columns of `m` that `order` names, in that order.
inline matrix take_columns(matrix_view m, std::vector<std::int32_t> const& order) {
    matrix taken(m.rows(), static_cast<index_t>(order.size()));
    for (index_t row = 0; row < m.rows(); ++row) {
        for (index_t col = 0; col < taken.cols(); ++col) {
            taken(row, col) = m(row, order[static_cast<std::size_t>(col)]);
        }
    }
    return taken;
}

// The functions below are loops where Eigen has expressions: headers that everybody includes must compile fast, and
// every expression is some ten classes to a compiler.

/// The entries of `m` as numbers of the type `To`.
template <class To> basic_matrix<To> converted(matrix_view m) {
    basic_matrix<To> to(m.rows(), m.cols());
    for (index_t row = 0; row < m.rows(); ++row) {
        float const* const from = m.data() + row * m.outerStride();
        std::copy_n(from, m.cols(), to.data() + row * m.cols());
    }
    return to;
}
/// The entries of `m` as doubles.
inline basic_matrix<double> to_double(matrix_view m) { return converted<double>(m); }

/// `factor` times the entries of `m`, rounded to floats.
inline matrix to_float(basic_matrix_view<double> m, double factor = 1) {
    matrix narrow(m.rows(), m.cols());
    for (index_t row = 0; row < m.rows(); ++row) {
        double const* const from = m.data() + row * m.outerStride();
        float* const to = narrow.data() + row * m.cols();
        for (index_t col = 0; col < m.cols(); ++col) {
            to[col] = static_cast<float>(factor * from[col]);
        }
    }
    return narrow;
}

/// A matrix of zeros.
template <class Scalar> basic_matrix<Scalar> zero_matrix(index_t rows, index_t cols) {
    basic_matrix<Scalar> m(rows, cols);
    std::fill_n(m.data(), m.size(), Scalar{0});
    return m;
}

/// Whether `n` numbers are neither infinite nor NaN.
template <class Scalar> bool all_finite(Scalar const* x, index_t n) {
    int others = 0; // counted without a branch, so that compilers use vector instructions
    for (index_t i = 0; i < n; ++i) {
        others |= is_finite(x[i]) ? 0 : 1;
    }
    return others == 0;
}
/// Whether no entry is infinite or NaN.
inline bool all_finite(matrix_view m) {
    for (index_t row = 0; row < m.rows(); ++row) {
        if (!all_finite(m.data() + row * m.outerStride(), m.cols())) {
            return false;
        }
    }
    return true;
}

/// The matrix (rows, cols) whose rows begin `stride` numbers apart, the first one at `data`; it is not copied.
template <class Scalar>
basic_matrix_view<Scalar> view_of(Scalar const* data, index_t rows, index_t cols, index_t stride) {
    return Eigen::Map<basic_matrix<Scalar> const, 0, Eigen::OuterStride<>>(data, rows, cols, {stride});
}

/// The numbers of `m`, row by row.
inline std::vector<float> entries_of(matrix_view m) {
    std::vector<float> entries(static_cast<std::size_t>(m.size()));
    for (index_t row = 0; row < m.rows(); ++row) {
        std::copy_n(m.data() + row * m.outerStride(), m.cols(), entries.data() + row * m.cols());
    }
    return entries;
}

/// Copies what is above the diagonal of a square matrix to below it.
template <class Scalar> void mirror_upper(basic_matrix<Scalar>& m) {
    index_t const n = m.rows();
    constexpr index_t block = 32; // a transposition meets few cache lines at a time
    for (index_t top = 0; top < n; top += block) {
        for (index_t left = 0; left <= top; left += block) {
            for (index_t row = top; row < std::min(top + block, n); ++row) {
                for (index_t col = left; col < std::min(left + block, row); ++col) {
                    m.data()[row * n + col] = m.data()[col * n + row];
                }
            }
        }
    }
}

/// The largest absolute value of each column; 0 where there are no rows.
inline float_vector largest_of_columns(matrix_view m) {
    float_vector largest(m.cols());
    std::fill_n(largest.data(), m.cols(), 0.0F);
    for (index_t row = 0; row < m.rows(); ++row) {
        float const* const x = m.data() + row * m.outerStride();
        for (index_t col = 0; col < m.cols(); ++col) {
            largest.data()[col] = std::max(largest.data()[col], std::abs(x[col]));
        }
    }
    return largest;
}

/// The block of `m` that begins at `row` and `col`, by reference.
inline matrix_view block_of(matrix_view m, index_t row, index_t col, index_t rows, index_t cols) {
    return view_of(m.data() + row * m.outerStride() + col, rows, cols, m.outerStride());
}
/// `count` rows of `m` from `first` on, by reference.
inline matrix_view middle_rows(matrix_view m, index_t first, index_t count) {
    return block_of(m, first, 0, count, m.cols());
}

/// The shape of any Eigen expression.
template <class Derived> extents shape_of(Eigen::EigenBase<Derived> const& m) { return {m.rows(), m.cols()}; }

} // namespace detent::inline DETENT_ABI

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

// The one door to Eigen: rooms that compute on matrices include this, the others keep Eigen out.
#include <cstdint>
#include <type_traits>
#include <vector>

#include <Eigen/Cholesky>
#include <Eigen/Core>
#include <Eigen/LU>

#include "detent/core/index.hpp"

static_assert(EIGEN_VERSION_AT_LEAST(3, 4, 0), "detent needs Eigen 3.4 or newer");

namespace detent::inline DETENT_ABI {

/// A row-major matrix; weights are (out, in), activations (token, feature).
template <class Scalar> using basic_matrix = Eigen::Matrix<Scalar, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
/// A column.
template <class Scalar> using basic_vector = Eigen::Matrix<Scalar, Eigen::Dynamic, 1>;

/// The type of weights (out, in) and activations (token, feature).
using matrix = basic_matrix<float>;
/// A column of floats.
using float_vector = basic_vector<float>;

/// A read-only matrix or a block of one, by reference.
template <class Scalar>
using basic_matrix_view = Eigen::Ref<basic_matrix<Scalar> const, 0, Eigen::OuterStride<>>;
/// A writable matrix or a block of one, by reference.
template <class Scalar> using basic_matrix_ref = Eigen::Ref<basic_matrix<Scalar>, 0, Eigen::OuterStride<>>;

/// A read-only float matrix or a block of one, by reference.
using matrix_view = basic_matrix_view<float>;
/// A writable float matrix or a block of one, by reference.
using matrix_ref = basic_matrix_ref<float>;

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

/// The shape of any Eigen expression.
template <class Derived> extents shape_of(Eigen::EigenBase<Derived> const& m) { return {m.rows(), m.cols()}; }

} // namespace detent::inline DETENT_ABI

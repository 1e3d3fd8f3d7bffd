// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <type_traits>

#include "detent/core/contract.hpp"
#include "detent/core/eigen.hpp"
#include "detent/core/error.hpp"
#include "detent/simd/compiled_product.hpp"
#include "detent/simd/product.hpp"

namespace detent::inline DETENT_ABI::nn {

#if defined(EIGEN_USE_BLAS)
/// The matrix products of models and solvers, C += factor A B, by the BLAS that Eigen was told to use.
/// Its bits may depend on the number of its threads and on how rows are cut for the executor, and so may codes then.
template <class T, class Sum = T> class products {
public:
    /// See `simd::products`.
    static void add(index_t m, index_t n, index_t k, T factor, simd::strided<T> a, simd::strided<T> b, Sum* c,
                    index_t c_stride, simd::part = simd::part::all) {
        using rows = Eigen::Map<basic_matrix<T> const, 0, Eigen::OuterStride<>>;
        using columns = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::ColMajor>;
        using cols = Eigen::Map<columns const, 0, Eigen::OuterStride<>>;
        auto const with = [](simd::strided<T> s, index_t height, index_t width, auto const& f) {
            if (s.col_stride == 1) {
                f(rows(s.data, height, width, Eigen::OuterStride<>(s.row_stride)));
            } else {
                DETENT_EXPECTS(s.row_stride == 1);
                f(cols(s.data, height, width, Eigen::OuterStride<>(s.col_stride)));
            }
        };
        constexpr index_t depth = std::is_same_v<T, Sum> ? 1 << 30 : 256; // float sums stay short
        Eigen::Map<basic_matrix<Sum>, 0, Eigen::OuterStride<>> sum(c, m, n, Eigen::OuterStride<>(c_stride));
        for (index_t p = 0; p < k; p += depth) {
            index_t const terms = std::min(depth, k - p);
            with(a.block(0, p), m, terms, [&](auto const& left) {
                with(b.block(p, 0), terms, n, [&](auto const& right) {
                    if constexpr (std::is_same_v<T, Sum>) {
                        sum.noalias() += factor * left * right;
                    } else {
                        sum += (factor * left * right).eval().template cast<Sum>();
                    }
                });
            });
        }
    }
};
#elif defined(DETENT_KERNELS)
/// The matrix products of models and solvers, C += factor A B: those of the target detent::kernels, for the instruction
/// set of the processor.
template <class T, class Sum = T> class products {
public:
    /// See `simd::products`.
    static void add(index_t m, index_t n, index_t k, T factor, simd::strided<T> a, simd::strided<T> b, Sum* c,
                    index_t c_stride, simd::part wanted = simd::part::all) {
        compiled::chosen_products().of<T, Sum>()(m, n, k, factor, a.data, a.row_stride, a.col_stride, b.data,
                                                 b.row_stride, b.col_stride, c, c_stride, wanted == simd::part::upper);
    }
};
#else
using simd::products;
#endif

/// How a matrix or vector that lies in memory is read: by rows, a transpose by columns.
template <class X> simd::strided<scalar_of<X>> strided(Eigen::MatrixBase<X> const& x) {
    static_assert((X::Flags & Eigen::DirectAccessBit) != 0, "the numbers must lie in memory");
    expect_valid(x.derived().innerStride() == 1 || x.size() == 0, "matrix",
                 "has neither rows nor columns whose numbers are neighbours");
    index_t const outer = x.derived().outerStride();
    return X::IsRowMajor ? simd::strided<scalar_of<X>>{x.derived().data(), outer}
                         : simd::strided<scalar_of<X>>{x.derived().data(), 1, outer};
}

/// C += factor A B, of which C (m, n) lies in rows; A (m, k) and B (k, n) may be transposes.
template <class A, class B>
void add_product(basic_matrix_ref<scalar_of<A>> c, Eigen::MatrixBase<A> const& a, Eigen::MatrixBase<B> const& b,
                 scalar_of<A> factor = 1) {
    expect_valid(a.cols() == b.rows() && shape_of(c) == (extents{a.rows(), b.cols()}), "product",
                 "is of matrices that do not fit");
    products<scalar_of<A>>::add(a.rows(), b.cols(), a.cols(), factor, strided(a), strided(b), c.data(),
                                c.outerStride());
}

} // namespace detent::inline DETENT_ABI::nn

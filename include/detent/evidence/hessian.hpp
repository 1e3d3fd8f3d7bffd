// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <limits>
#include <numeric>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "detent/core/eigen.hpp"
#include "detent/core/error.hpp"
#include "detent/core/executor.hpp"
#include "detent/core/half.hpp"
#include "detent/nn/products.hpp"
#include "detent/simd/dot.hpp"

namespace detent::inline DETENT_ABI {

/// @throws error when a Hessian of so many features cannot be that of the inputs of `w` (out, in).
inline void expect_features(index_t features, matrix_view w) {
    if (features != w.cols()) {
        raise(error("hessian", "has " + std::to_string(features) + " features, the weights have " +
                                   std::to_string(w.cols()) + " columns"));
    }
}

/// Accumulates H = 2/n sum x x^T over the inputs x of a linear layer, the Hessian of its mean squared output error
/// (GPTQ, section 3). Products are summed in float over runs of 256 tokens of one `add` and these sums in `Scalar`;
/// only the upper triangle is kept, and the same bits come out for any executor.
template <class Scalar = double> class basic_hessian {
public:
    basic_hessian() = default;
    /// Of inputs of so many features, before any is seen. @throws error when there are fewer than none.
    explicit basic_hessian(index_t features) : sum_(zeros(features)) {}

    /// From what `sum()` and `tokens()` of another one said. @throws error when `sum` is not square or not finite, or
    /// `tokens` negative.
    basic_hessian(basic_matrix<Scalar> sum, index_t tokens);

    /// The Hessian of `activations` (token, feature).
    static basic_hessian of(matrix_view activations, executor_ref executor = {}) {
        basic_hessian h(activations.cols());
        h.add(activations, executor);
        return h;
    }

    /// Adds inputs (token, feature). @throws error when the number of features differs.
    void add(matrix_view x, executor_ref executor = {});

    /// Adds inputs (token, feature), row by row. @throws error when their number is no multiple of the features.
    void add(std::span<half const> x, executor_ref executor = {}) { add_halves(x, executor); }
    void add(std::span<bfloat16 const> x, executor_ref executor = {}) { add_halves(x, executor); }

    /// Adds what another Hessian has seen. @throws error when the number of features differs, or that of all tokens
    /// does not fit.
    basic_hessian& operator+=(basic_hessian const& other);

    /// The Hessian of only these inputs, ascending. @throws error when there are no such, or they do not ascend.
    basic_hessian restricted_to(std::vector<std::int32_t> const& inputs) const {
        for (std::size_t k = 0; k < inputs.size(); ++k) {
            expect_valid(inputs[k] > (k == 0 ? -1 : inputs[k - 1]) && inputs[k] < features(), "hessian",
                         "cannot be restricted to inputs that it does not have, or that do not ascend");
        }
        basic_hessian part(std::ssize(inputs));
        for (index_t i = 0; i < part.features(); ++i) {
            for (index_t j = i; j < part.features(); ++j) {
                part.sum_(i, j) = sum_(inputs[static_cast<std::size_t>(i)], inputs[static_cast<std::size_t>(j)]);
            }
        }
        part.tokens_ = tokens_;
        return part;
    }

    /// Makes it `h` (in, in), of which the upper triangle is read; the number of tokens stays. @throws error when it
    /// has another shape, or no token was seen.
    void replace_hessian(basic_matrix<Scalar> h) {
        expect_valid(h.rows() == features() && h.cols() == features(), "hessian",
                     "is replaced by one of another shape");
        expect_seen();
        sum_ = std::move(h);
        for (index_t k = 0; k < sum_.size(); ++k) {
            sum_.data()[k] /= scale();
        }
        clear_lower(0, features());
    }

    index_t features() const { return sum_.rows(); }
    /// How many inputs it has seen.
    index_t tokens() const { return tokens_; }
    /// sum x x^T (in, in), not scaled; zero below the diagonal.
    basic_matrix<Scalar> const& sum() const { return sum_; }
    /// What `sum()` is multiplied by to give H.
    Scalar scale() const { return tokens_ > 0 ? Scalar{2} / static_cast<Scalar>(tokens_) : Scalar{0}; }

    /// H at row `i`, column `j`.
    Scalar operator()(index_t i, index_t j) const { return scale() * (i <= j ? sum_(i, j) : sum_(j, i)); }

    /// The diagonal of H.
    basic_vector<Scalar> diagonal() const {
        basic_vector<Scalar> d(features());
        for (index_t j = 0; j < features(); ++j) {
            d(j) = scale() * sum_(j, j);
        }
        return d;
    }

    /// @throws error when no token was seen.
    void expect_seen() const { expect_valid(tokens_ > 0, "hessian", "has seen no tokens"); }

    /// 0.5 tr(D H D^T): the mean over the inputs of |D x|^2, for D (out, in). @throws error when D has another number
    /// of columns.
    double quadratic(matrix_view d, executor_ref executor = {}) const;

private:
    static basic_matrix<Scalar> zeros(index_t features) {
        expect_option(features >= 0, "hessian", "number of features", features, "0 or more");
        return zero_matrix<Scalar>(features, features);
    }

    template <class Half> void add_halves(std::span<Half const> x, executor_ref executor) {
        index_t const tokens = features() > 0 ? std::ssize(x) / features() : 0;
        if (tokens * features() != std::ssize(x)) {
            raise(error("hessian", std::to_string(x.size()) + " numbers are no inputs of " +
                                       std::to_string(features()) + " features"));
        }
        constexpr index_t at_once = 1024;
        matrix run; // (token, feature)
        for (index_t t = 0; t < tokens; t += at_once) {
            run.resize(std::min(at_once, tokens - t), features());
            Half const* const halves = x.data() + t * features();
            for (index_t k = 0; k < run.size(); ++k) {
                run.data()[k] = static_cast<float>(halves[k]);
            }
            add(run, executor);
        }
    }

    /// How many tokens have been seen with `more`, which a file may have made any number.
    index_t added_tokens(index_t more) const {
        constexpr index_t most = std::numeric_limits<index_t>::max();
        expect_valid(more <= most - tokens_, "hessian", "has seen more tokens than can be counted");
        return tokens_ + more;
    }

    /// Rows [begin, end) become 0 between column `begin` and the diagonal.
    void clear_lower(index_t begin, index_t end) {
        for (index_t row = begin; row < end; ++row) {
            std::fill_n(&sum_(row, begin), row - begin, Scalar{0});
        }
    }

    basic_matrix<Scalar> sum_; // (in, in), upper triangular
    index_t tokens_ = 0;
};

/// The Hessian that solvers take, with sums in double.
using hessian = basic_hessian<>;

template <class Scalar>
basic_hessian<Scalar>::basic_hessian(basic_matrix<Scalar> sum, index_t tokens) : sum_(std::move(sum)), tokens_(tokens) {
    if (sum_.rows() != sum_.cols()) {
        raise(
            error("hessian", "is not square but " + std::to_string(sum_.rows()) + " x " + std::to_string(sum_.cols())));
    }
    if (tokens < 0) {
        raise(error("hessian", "has seen " + std::to_string(tokens) + " tokens"));
    }
    clear_lower(0, features());
    if (!all_finite(sum_.data(), sum_.size())) {
        raise(error("hessian", "is not finite"));
    }
}

template <class Scalar> void basic_hessian<Scalar>::add(matrix_view x, executor_ref executor) {
    if (x.cols() != features()) {
        raise(error("hessian",
                    "expected inputs of " + std::to_string(features()) + " features, got " + std::to_string(x.cols())));
    }
    if (x.rows() == 0) {
        return;
    }
    index_t const seen = added_tokens(x.rows());
    simd::strided<float> const inputs{x.data(), x.outerStride()};
    // A task is a square tile of the triangle; smaller where there are few.
    index_t const width = std::clamp<index_t>(ceil_div(features(), 8), 64, 256);
    index_t const tiles = ceil_div(features(), width);
    executor.for_each(tiles * tiles, [&](index_t tile) {
        index_t const row = tile / tiles * width;
        index_t const col = tile % tiles * width;
        if (row > col) {
            return;
        }
        nn::products<float, Scalar>::add(std::min(width, features() - row), std::min(width, features() - col), x.rows(),
                                         1, inputs.block(0, row).transpose(), inputs.block(0, col), &sum_(row, col),
                                         sum_.outerStride(), row == col ? simd::part::upper : simd::part::all);
        if (row == col) {
            clear_lower(row, std::min(row + width, features()));
        }
    });
    tokens_ = seen;
}

template <class Scalar> basic_hessian<Scalar>& basic_hessian<Scalar>::operator+=(basic_hessian const& other) {
    if (other.features() != features()) {
        raise(error("hessian", "expected one of " + std::to_string(features()) + " features, got " +
                                   std::to_string(other.features())));
    }
    index_t const seen = added_tokens(other.tokens_);
    for (index_t k = 0; k < sum_.size(); ++k) {
        sum_.data()[k] += other.sum_.data()[k];
    }
    tokens_ = seen;
    return *this;
}

template <class Scalar> double basic_hessian<Scalar>::quadratic(matrix_view d, executor_ref executor) const {
    expect_features(features(), d);
    constexpr index_t rows_per_task = 128;
    constexpr index_t width = 256;
    index_t const in = features();
    basic_vector<Scalar> half_diagonal(in);
    for (index_t j = 0; j < in; ++j) {
        half_diagonal(j) = sum_(j, j) / 2;
    }
    std::vector<double> part(static_cast<std::size_t>(ceil_div(d.rows(), rows_per_task)));
    executor.for_pieces(d.rows(), rows_per_task, [&](index_t begin, index_t end) {
        basic_matrix<Scalar> const rows = converted<Scalar>(middle_rows(d, begin, end - begin)); // (end - begin, in)
        basic_matrix<Scalar> product = zero_matrix<Scalar>(end - begin, in);                     // with the triangle
        for (index_t col = 0; col < in; col += width) {
            index_t const last = std::min(col + width, in);
            nn::products<Scalar>::add(end - begin, last - col, last, 1, {rows.data(), in}, {sum_.data() + col, in},
                                      product.data() + col, in);
        }
        double sum = 0;
        for (index_t row = 0; row < end - begin; ++row) {
            Scalar const* const x = rows.data() + row * in;
            Scalar* const y = product.data() + row * in;
            for (index_t j = 0; j < in; ++j) { // what is beside the diagonal stands for both sides
                y[j] -= x[j] * half_diagonal(j);
            }
            sum += static_cast<double>(simd::dot(x, y, in));
        }
        part[static_cast<std::size_t>(begin / rows_per_task)] = sum;
    });
    return static_cast<double>(scale()) * std::accumulate(part.begin(), part.end(), 0.0);
}

#if defined(DETENT_COMPILED)
extern template class basic_hessian<double>;
#endif

} // namespace detent::inline DETENT_ABI

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "detent/core/contract.hpp"
#include "detent/core/eigen.hpp"
#include "detent/core/error.hpp"
#include "detent/core/executor.hpp"
#include "detent/core/half.hpp"
#include "detent/nn/products.hpp"

namespace detent::inline DETENT_ABI {

/// Accumulates H = 2/n sum x x^T over the inputs x of a linear layer, the Hessian of its mean squared output error
/// (GPTQ, section 3). Products are summed in float over runs of 256 tokens of one `add` and these sums in double; only
/// the upper triangle is kept, and the same bits come out for any executor.
class hessian {
public:
    hessian() = default;
    explicit hessian(index_t features) : sum_(basic_matrix<double>::Zero(features, features)) {}

    /// From what `sum()` and `tokens()` of another one said. @throws error when `sum` is not square or not finite, or
    /// `tokens` negative.
    hessian(basic_matrix<double> sum, index_t tokens) : sum_(std::move(sum)), tokens_(tokens) {
        if (sum_.rows() != sum_.cols()) {
            throw error("hessian", "is not square but " + std::to_string(sum_.rows()) + " x " +
                                       std::to_string(sum_.cols()));
        }
        if (tokens < 0) {
            throw error("hessian", "has seen " + std::to_string(tokens) + " tokens");
        }
        clear_lower(0, features());
        if (!sum_.allFinite()) {
            throw error("hessian", "is not finite");
        }
    }

    /// The Hessian of `activations` (token, feature).
    static hessian of(matrix_view activations, executor_ref executor = {}) {
        hessian h(activations.cols());
        h.add(activations, executor);
        return h;
    }

    /// Adds inputs (token, feature). @throws error when the number of features differs.
    void add(matrix_view x, executor_ref executor = {}) {
        if (x.cols() != features()) {
            throw error("hessian", "expected inputs of " + std::to_string(features()) + " features, got " +
                                       std::to_string(x.cols()));
        }
        if (x.rows() == 0) {
            return;
        }
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
            nn::products<float, double>::add(std::min(width, features() - row), std::min(width, features() - col),
                                             x.rows(), 1, inputs.block(0, row).transpose(), inputs.block(0, col),
                                             &sum_(row, col), sum_.outerStride(),
                                             row == col ? simd::part::upper : simd::part::all);
            if (row == col) {
                clear_lower(row, std::min(row + width, features()));
            }
        });
        tokens_ += x.rows();
    }

    /// Adds inputs (token, feature), row by row. @throws error when their number is no multiple of the features.
    void add(std::span<half const> x, executor_ref executor = {}) { add_halves(x, executor); }
    void add(std::span<bfloat16 const> x, executor_ref executor = {}) { add_halves(x, executor); }

    /// Adds what another Hessian has seen. @throws error when the number of features differs.
    hessian& operator+=(hessian const& other) {
        if (other.features() != features()) {
            throw error("hessian", "expected one of " + std::to_string(features()) + " features, got " +
                                       std::to_string(other.features()));
        }
        sum_ += other.sum_;
        tokens_ += other.tokens_;
        return *this;
    }

    /// The Hessian of only these inputs, ascending.
    hessian restricted_to(std::vector<std::int32_t> const& inputs) const {
        DETENT_EXPECTS(std::ranges::is_sorted(inputs));
        hessian part(std::ssize(inputs));
        for (index_t i = 0; i < part.features(); ++i) {
            for (index_t j = i; j < part.features(); ++j) {
                part.sum_(i, j) = sum_(inputs[static_cast<std::size_t>(i)], inputs[static_cast<std::size_t>(j)]);
            }
        }
        part.tokens_ = tokens_;
        return part;
    }

    /// Makes it `h` (in, in), of which the upper triangle is read; the number of tokens stays.
    void replace_hessian(basic_matrix<double> h) {
        sum_ = std::move(h);
        sum_ /= scale();
        clear_lower(0, features());
    }

    index_t features() const { return sum_.rows(); }
    /// How many inputs it has seen.
    index_t tokens() const { return tokens_; }
    /// sum x x^T (in, in), not scaled; zero below the diagonal.
    basic_matrix<double> const& sum() const { return sum_; }
    /// What `sum()` is multiplied by to give H.
    double scale() const { return tokens_ > 0 ? 2.0 / static_cast<double>(tokens_) : 0.0; }

    /// H at row `i`, column `j`.
    double operator()(index_t i, index_t j) const { return scale() * (i <= j ? sum_(i, j) : sum_(j, i)); }

    /// The diagonal of H.
    basic_vector<double> diagonal() const { return scale() * sum_.diagonal(); }

    /// 0.5 tr(D H D^T): the mean over the inputs of |D x|^2, for D (out, in).
    double quadratic(matrix_view d, executor_ref executor = {}) const {
        DETENT_EXPECTS(d.cols() == features());
        constexpr index_t rows_per_task = 128;
        constexpr index_t width = 256;
        basic_vector<double> part = basic_vector<double>::Zero(ceil_div(d.rows(), rows_per_task));
        executor.for_pieces(d.rows(), rows_per_task, [&](index_t begin, index_t end) {
            basic_matrix<double> const rows = d.middleRows(begin, end - begin).cast<double>(); // (end - begin, in)
            basic_matrix<double> product = basic_matrix<double>::Zero(rows.rows(), rows.cols()); // with the triangle
            for (index_t col = 0; col < features(); col += width) {
                index_t const last = std::min(col + width, features());
                nn::products<double>::add(rows.rows(), last - col, last, 1, {rows.data(), rows.outerStride()},
                                          {&sum_(0, col), sum_.outerStride()}, &product(0, col), product.outerStride());
            }
            part(begin / rows_per_task) =
                2 * product.cwiseProduct(rows).sum() - (rows.cwiseAbs2() * sum_.diagonal()).sum();
        });
        return 0.5 * scale() * part.sum();
    }

private:
    template <class Half> void add_halves(std::span<Half const> x, executor_ref executor) {
        index_t const tokens = features() > 0 ? std::ssize(x) / features() : 0;
        if (tokens * features() != std::ssize(x)) {
            throw error("hessian", std::to_string(x.size()) + " numbers are no inputs of " +
                                       std::to_string(features()) + " features");
        }
        constexpr index_t at_once = 1024;
        matrix run; // (token, feature)
        for (index_t t = 0; t < tokens; t += at_once) {
            run.resize(std::min(at_once, tokens - t), features());
            auto const halves =
                x.subspan(static_cast<std::size_t>(t * features()), static_cast<std::size_t>(run.size()));
            std::ranges::transform(halves, run.data(), [](Half v) { return static_cast<float>(v); });
            add(run, executor);
        }
    }

    void clear_lower(index_t begin, index_t end) {
        sum_.block(begin, begin, end - begin, end - begin).triangularView<Eigen::StrictlyLower>().setZero();
    }

    basic_matrix<double> sum_; // (in, in), upper triangular
    index_t tokens_ = 0;
};

/// @throws error when a Hessian of so many features cannot be that of the inputs of `w` (out, in).
inline void expect_features(index_t features, matrix_view w) {
    if (features != w.cols()) {
        throw error("hessian", "has " + std::to_string(features) + " features, the weights have " +
                                   std::to_string(w.cols()) + " columns");
    }
}

} // namespace detent::inline DETENT_ABI

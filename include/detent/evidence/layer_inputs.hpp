// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "detent/evidence/factor.hpp"
#include "detent/matrix/input_map.hpp"
#include "detent/simd/dot.hpp"

namespace detent::inline DETENT_ABI {

/// What is known about the inputs of layers that read the same: the Hessian H of the inputs x, the factor of it, which
/// is computed once for all these layers and, where the float model was run too, C = 2/n sum (x~ - x) x^T, where x is
/// what the layers read behind quantized ones and x~ what they read for the same token in the float model. Because it
/// keeps the factor, not even const uses of it may happen at once in two threads.
template <class Scalar = double> class basic_layer_inputs {
public:
    basic_layer_inputs() = default;
    explicit basic_layer_inputs(index_t features) : hessian_(features) {}
    /// Of inputs of which no more is known than their Hessian.
    explicit basic_layer_inputs(basic_hessian<Scalar> h) : hessian_(std::move(h)) {}

    /// Of all inputs `x` (token, in), which are kept.
    static basic_layer_inputs of(matrix_view x, executor_ref executor = {}) {
        basic_layer_inputs known(x.cols());
        known.keep(x.rows());
        known.add(x, executor);
        return known;
    }

    /// Keeps the first `tokens` inputs, for searches that need more than their Hessian; before any is added. @throws
    /// error when some have been.
    void keep(index_t tokens) {
        expect_option(tokens >= 0, "inputs", "number of tokens to keep", tokens, "0 or more");
        expect_valid(hessian_.tokens() == 0, "inputs", "can be kept only from the first on");
        kept_.resize(tokens, features());
    }
    /// The inputs that were kept, (token, feature).
    matrix_view kept() const { return middle_rows(kept_, 0, std::min(kept_.rows(), hessian_.tokens())); }

    /// Adds inputs (token, feature). @throws error when the number of features differs, or earlier inputs came with
    /// those of the float model.
    void add(matrix_view x, executor_ref executor = {});

    /// Adds inputs (token, feature) of the quantized model and those of the float model for the same tokens.
    /// @throws error when their shapes or the number of features differ, or earlier inputs came alone.
    void add(matrix_view x, matrix_view floats, executor_ref executor = {});

    index_t features() const { return hessian_.features(); }
    basic_hessian<Scalar> const& hessian() const { return hessian_; }
    operator basic_hessian<Scalar> const&() const { return hessian_; } // NOLINT: implicit, most need only this

    /// See `detent::factor`. Computed when first asked for, and again for other options.
    basic_hessian_factor<Scalar> const& factor(factor_options options = {}, executor_ref executor = {}) const {
        if (factor_.order.empty() || options != factored_) {
            factor_ = detent::factor<Scalar>(hessian_, options, executor);
            factored_ = options;
        }
        return factor_;
    }

    /// The largest absolute value of each input that was added; of the float model's inputs where they are there.
    /// Empty where only a Hessian is known.
    float_vector const& largest() const { return largest_; }

    /// What is known about only these inputs, ascending.
    basic_layer_inputs restricted_to(std::vector<std::int32_t> const& inputs) const {
        basic_layer_inputs part;
        part.hessian_ = hessian_.restricted_to(inputs);
        part.kept_ = take_columns(kept_, inputs);
        auto const count = std::ssize(inputs);
        auto const input = [&](index_t i) { return inputs[static_cast<std::size_t>(i)]; };
        part.largest_.resize(largest_.size() > 0 ? count : 0);
        for (index_t i = 0; i < part.largest_.size(); ++i) {
            part.largest_(i) = largest_(input(i));
        }
        if (has_difference()) {
            part.sum_.resize(count, count);
            for (index_t i = 0; i < count; ++i) {
                for (index_t j = 0; j < count; ++j) {
                    part.sum_(i, j) = sum_(input(i), input(j));
                }
            }
            part.differences_ = differences_.restricted_to(inputs);
        }
        return part;
    }

    /// See `hessian::replace_hessian`.
    void replace_hessian(basic_matrix<Scalar> h) {
        hessian_.replace_hessian(std::move(h));
        forget_derived();
    }

    /// What is known about mapped inputs M x, kept until another map is asked for: H' = M H M^T, C' = M C M^T, the kept
    /// inputs mapped. Where blocks mix inputs, the largest values are those of the kept inputs if all were kept, and
    /// else not known.
    basic_layer_inputs const& mapped(input_map const& map, executor_ref executor = {}) const;

    /// Whether inputs of the float model were ever added.
    bool has_difference() const { return sum_.size() > 0; }
    /// C (in, in): row i tells how the difference of input i goes with all inputs. @throws error when inputs of the
    /// float model were never added.
    basic_matrix<Scalar> difference() const {
        expect_difference();
        basic_matrix<Scalar> c = sum_;
        for (index_t k = 0; k < c.size(); ++k) {
            c.data()[k] *= hessian_.scale();
        }
        return c;
    }

    /// The mean of |W x~ - Q x|^2 over the inputs: how far quantized weights `q` (out, in) behind quantized layers are
    /// from what `w` gives in the float model. @throws error when shapes do not fit, or as `difference`.
    double output_error(matrix_view w, matrix_view q, executor_ref executor = {}) const;

    /// The mean of |W (x~ - x)|^2 over the inputs, for `w` (out, in): what other inputs alone do to the output. @throws
    /// error as `output_error`.
    double difference_error(matrix_view w, executor_ref executor = {}) const {
        expect_difference();
        return differences_.quadratic(w, executor);
    }

private:
    void expect_difference() const { expect_valid(has_difference(), "inputs", "of the float model are needed too"); }

    basic_layer_inputs make_mapped(input_map const& map, executor_ref executor) const;

    /// The Hessian of mapped inputs M x.
    static basic_hessian<Scalar> map_hessian(basic_hessian<Scalar> const& h, input_map const& map,
                                             executor_ref executor) {
        basic_matrix<Scalar> full = h.sum();
        mirror_upper(full);
        return basic_hessian<Scalar>(map.both_sides(std::move(full), executor), h.tokens());
    }

    /// a - b.
    static matrix minus(matrix_view a, matrix_view b) {
        matrix d(a.rows(), a.cols());
        for (index_t row = 0; row < a.rows(); ++row) {
            float const* const x = a.data() + row * a.outerStride();
            float const* const y = b.data() + row * b.outerStride();
            for (index_t col = 0; col < a.cols(); ++col) {
                d.data()[row * a.cols() + col] = x[col] - y[col];
            }
        }
        return d;
    }

    /// The mean of 2 (A x) . (B (x~ - x)), tr(A C^T B^T), for A and B (out, in).
    double mixed(matrix_view a, matrix_view b, executor_ref executor) const;

    void add_to_largest(matrix_view x) {
        if (x.rows() == 0) {
            return;
        }
        float_vector const here = largest_of_columns(x);
        if (largest_.size() == 0) {
            largest_ = here;
        }
        for (index_t j = 0; j < here.size(); ++j) {
            largest_(j) = std::max(largest_(j), here(j));
        }
    }

    void add_to_hessian(matrix_view x, executor_ref executor) {
        index_t const begin = hessian_.tokens();
        hessian_.add(x, executor);
        for (index_t row = begin; row < std::min(begin + x.rows(), kept_.rows()); ++row) {
            std::copy_n(x.data() + (row - begin) * x.outerStride(), x.cols(), kept_.data() + row * x.cols());
        }
        forget_derived();
    }

    void forget_derived() {
        factor_ = {};
        mapped_.reset();
    }

    basic_hessian<Scalar> hessian_;
    matrix kept_;                       // (token, in)
    float_vector largest_;              // (in)
    basic_matrix<Scalar> sum_;          // (in, in), sum (x~ - x) x^T; empty without the float model
    basic_hessian<Scalar> differences_; // of x~ - x
    mutable basic_hessian_factor<Scalar> factor_;
    mutable factor_options factored_; // of `factor_`
    mutable std::shared_ptr<basic_layer_inputs const> mapped_;
    mutable input_map map_; // of `mapped_`
};

/// What solvers take, with sums in double.
using layer_inputs = basic_layer_inputs<>;

template <class Scalar> void basic_layer_inputs<Scalar>::add(matrix_view x, executor_ref executor) {
    if (has_difference()) {
        raise(error("inputs", "of the float model are missing, which earlier ones came with"));
    }
    add_to_hessian(x, executor);
    add_to_largest(x);
}

template <class Scalar> void basic_layer_inputs<Scalar>::add(matrix_view x, matrix_view floats, executor_ref executor) {
    if (shape_of(x) != shape_of(floats)) {
        raise(error("inputs", "of the float model are " + std::to_string(floats.rows()) + " x " +
                                  std::to_string(floats.cols()) + ", of the quantized one " + std::to_string(x.rows()) +
                                  " x " + std::to_string(x.cols())));
    }
    if (!has_difference() && hessian_.tokens() > 0) {
        raise(error("inputs", "of the float model are there, which earlier ones came without"));
    }
    add_to_hessian(x, executor);
    if (!has_difference()) {
        sum_ = zero_matrix<Scalar>(features(), features());
        differences_ = basic_hessian<Scalar>(features());
    }
    matrix const difference = minus(floats, x); // (token, in)
    differences_.add(difference, executor);
    add_to_largest(floats);
    simd::strided<float> const left{difference.data(), difference.cols()};
    executor.for_pieces(x.rows() > 0 ? features() : 0, 128, [&](index_t begin, index_t end) {
        nn::products<float, Scalar>::add(end - begin, features(), x.rows(), 1, left.block(0, begin).transpose(),
                                         {x.data(), x.outerStride()}, &sum_(begin, 0), features());
    });
}

template <class Scalar>
basic_layer_inputs<Scalar> const& basic_layer_inputs<Scalar>::mapped(input_map const& map,
                                                                     executor_ref executor) const {
    if (map.empty()) {
        return *this;
    }
    if (!mapped_ || map_ != map) {
        mapped_ = std::make_shared<basic_layer_inputs const>(make_mapped(map, executor));
        map_ = map;
    }
    return *mapped_;
}

template <class Scalar>
basic_layer_inputs<Scalar> basic_layer_inputs<Scalar>::make_mapped(input_map const& map, executor_ref executor) const {
    basic_layer_inputs m(features());
    m.hessian_ = map_hessian(hessian_, map, executor);
    m.kept_ = map.apply(kept_, executor);
    if (has_difference()) {
        m.sum_ = map.both_sides(sum_, executor);
        m.differences_ = map_hessian(differences_, map, executor);
    }
    bool mixes = false;
    for (auto const& step : map.steps()) {
        mixes = mixes || std::holds_alternative<block_hadamard>(step);
    }
    if (!mixes && largest_.size() > 0) {
        matrix row(1, largest_.size());
        std::copy_n(largest_.data(), largest_.size(), row.data());
        m.largest_ = largest_of_columns(map.apply(row));
    } else if (kept().rows() > 0 && kept().rows() == hessian_.tokens()) {
        m.largest_ = largest_of_columns(m.kept());
    }
    return m;
}

template <class Scalar>
double basic_layer_inputs<Scalar>::output_error(matrix_view w, matrix_view q, executor_ref executor) const {
    expect_features(features(), w);
    expect_valid(shape_of(w) == shape_of(q), "weights", "have another shape than the quantized ones");
    matrix const d = minus(w, q); // W x~ - Q x = D x + W (x~ - x)
    return hessian_.quadratic(d, executor) + mixed(d, w, executor) + differences_.quadratic(w, executor);
}

template <class Scalar>
double basic_layer_inputs<Scalar>::mixed(matrix_view a, matrix_view b, executor_ref executor) const {
    basic_matrix<Scalar> const c = difference();
    constexpr index_t rows_per_task = 128;
    index_t const in = features();
    std::vector<double> part(static_cast<std::size_t>(ceil_div(a.rows(), rows_per_task)));
    executor.for_pieces(a.rows(), rows_per_task, [&](index_t begin, index_t end) {
        index_t const count = end - begin;
        auto const of_a = converted<Scalar>(middle_rows(a, begin, count));
        auto const of_b = converted<Scalar>(middle_rows(b, begin, count));
        basic_matrix<Scalar> product = zero_matrix<Scalar>(count, in);
        nn::products<Scalar>::add(count, in, in, 1, {of_b.data(), in}, {c.data(), in}, product.data(), in);
        part[static_cast<std::size_t>(begin / rows_per_task)] =
            static_cast<double>(simd::dot(product.data(), of_a.data(), count * in));
    });
    return std::accumulate(part.begin(), part.end(), 0.0);
}

#if defined(DETENT_COMPILED)
extern template class basic_layer_inputs<double>;
#endif

} // namespace detent::inline DETENT_ABI

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "detent/core/contract.hpp"
#include "detent/evidence/factor.hpp"
#include "detent/matrix/input_map.hpp"

namespace detent::inline DETENT_ABI {

/// What is known about the inputs of layers that read the same: the Hessian H of the inputs x, the factor of it, which
/// is computed once for all these layers and, where the float model was run too, C = 2/n sum (x~ - x) x^T, where x is
/// what the layers read behind quantized ones and x~ what they read for the same token in the float model. Because it
/// keeps the factor, not even const uses of it may happen at once in two threads.
class layer_inputs {
public:
    layer_inputs() = default;
    explicit layer_inputs(index_t features) : hessian_(features) {}
    /// Of inputs of which no more is known than their Hessian.
    explicit layer_inputs(detent::hessian h) : hessian_(std::move(h)) {}

    /// Of all inputs `x` (token, in), which are kept.
    static layer_inputs of(matrix_view x, executor_ref executor = {}) {
        layer_inputs known(x.cols());
        known.keep(x.rows());
        known.add(x, executor);
        return known;
    }

    /// Keeps the first `tokens` inputs, for searches that need more than their Hessian; before any is added.
    void keep(index_t tokens) {
        DETENT_EXPECTS(hessian_.tokens() == 0 && tokens >= 0);
        kept_.resize(tokens, features());
    }
    /// The inputs that were kept, (token, feature).
    matrix_view kept() const { return kept_.topRows(std::min(kept_.rows(), hessian_.tokens())); }

    /// Adds inputs (token, feature). @throws error when the number of features differs, or earlier inputs came with
    /// those of the float model.
    void add(matrix_view x, executor_ref executor = {}) {
        if (has_difference()) {
            throw error("inputs", "of the float model are missing, which earlier ones came with");
        }
        add_to_hessian(x, executor);
        add_to_largest(x);
    }

    /// Adds inputs (token, feature) of the quantized model and those of the float model for the same tokens.
    /// @throws error when their shapes or the number of features differ, or earlier inputs came alone.
    void add(matrix_view x, matrix_view floats, executor_ref executor = {}) {
        if (shape_of(x) != shape_of(floats)) {
            throw error("inputs", "of the float model are " + std::to_string(floats.rows()) + " x " +
                                      std::to_string(floats.cols()) + ", of the quantized one " +
                                      std::to_string(x.rows()) + " x " + std::to_string(x.cols()));
        }
        if (!has_difference() && hessian_.tokens() > 0) {
            throw error("inputs", "of the float model are there, which earlier ones came without");
        }
        add_to_hessian(x, executor);
        if (!has_difference()) {
            sum_ = basic_matrix<double>::Zero(features(), features());
            differences_ = detent::hessian(features());
        }
        matrix const difference = floats - x; // (token, in)
        differences_.add(difference, executor);
        add_to_largest(floats);
        simd::strided<float> const left{difference.data(), difference.outerStride()};
        executor.for_pieces(x.rows() > 0 ? features() : 0, 128, [&](index_t begin, index_t end) {
            nn::products<float, double>::add(end - begin, features(), x.rows(), 1, left.block(0, begin).transpose(),
                                             {x.data(), x.outerStride()}, &sum_(begin, 0), sum_.outerStride());
        });
    }

    index_t features() const { return hessian_.features(); }
    detent::hessian const& hessian() const { return hessian_; }
    operator detent::hessian const&() const { return hessian_; } // NOLINT: implicit on purpose, most need only this

    /// See `detent::factor`. Computed when first asked for, and again for other options.
    hessian_factor const& factor(factor_options options = {}, executor_ref executor = {}) const {
        if (factor_.order.empty() || options != factored_) {
            factor_ = detent::factor(hessian_, options, executor);
            factored_ = options;
        }
        return factor_;
    }

    /// The largest absolute value of each input that was added; of the float model's inputs where they are there.
    /// Empty where only a Hessian is known.
    float_vector const& largest() const { return largest_; }

    /// What is known about only these inputs, ascending.
    layer_inputs restricted_to(std::vector<std::int32_t> const& inputs) const {
        layer_inputs part;
        part.hessian_ = hessian_.restricted_to(inputs);
        part.kept_ = take_columns(kept_, inputs);
        part.largest_ = largest_.size() > 0 ? float_vector(largest_(inputs)) : float_vector{};
        if (has_difference()) {
            part.sum_ = sum_(inputs, inputs);
            part.differences_ = differences_.restricted_to(inputs);
        }
        return part;
    }

    /// See `hessian::replace_hessian`.
    void replace_hessian(basic_matrix<double> h) {
        hessian_.replace_hessian(std::move(h));
        factor_ = {};
        mapped_ = {};
    }

    /// What is known about mapped inputs M x, kept until another map is asked for: H' = M H M^T, C' = M C M^T, the kept
    /// inputs mapped. Where blocks mix inputs, the largest values are those of the kept inputs if all were kept, and
    /// else not known.
    layer_inputs const& mapped(input_map const& map, executor_ref executor = {}) const {
        if (map.empty()) {
            return *this;
        }
        if (!mapped_ || *map_ != map) {
            mapped_ = std::make_shared<layer_inputs const>(make_mapped(map, executor));
            map_ = map;
        }
        return *mapped_;
    }

    /// Whether inputs of the float model were ever added.
    bool has_difference() const { return sum_.size() > 0; }
    /// C (in, in): row i tells how the difference of input i goes with all inputs.
    basic_matrix<double> difference() const {
        DETENT_EXPECTS(has_difference());
        return hessian_.scale() * sum_;
    }

    /// The mean of |W x~ - Q x|^2 over the inputs: how far quantized weights `q` (out, in) behind quantized layers are
    /// from what `w` gives in the float model.
    double output_error(matrix_view w, matrix_view q, executor_ref executor = {}) const {
        matrix const d = w - q; // W x~ - Q x = D x + W (x~ - x)
        return hessian_.quadratic(d, executor) + mixed(d, w, executor) + differences_.quadratic(w, executor);
    }

    /// The mean of |W (x~ - x)|^2 over the inputs, for `w` (out, in): what other inputs alone do to the output.
    double difference_error(matrix_view w, executor_ref executor = {}) const {
        DETENT_EXPECTS(has_difference());
        return differences_.quadratic(w, executor);
    }

private:
    layer_inputs make_mapped(input_map const& map, executor_ref executor) const {
        layer_inputs m(features());
        auto const mapped_hessian = [&](detent::hessian const& h) {
            basic_matrix<double> full = h.sum();
            full.triangularView<Eigen::StrictlyLower>() = full.transpose();
            return detent::hessian(map.both_sides(std::move(full), executor), h.tokens());
        };
        m.hessian_ = mapped_hessian(hessian_);
        m.kept_ = map.apply(kept_, executor);
        if (has_difference()) {
            m.sum_ = map.both_sides(sum_, executor);
            m.differences_ = mapped_hessian(differences_);
        }
        bool const mixes = std::ranges::any_of(
            map.steps(), [](auto const& step) { return std::holds_alternative<block_hadamard>(step); });
        if (!mixes && largest_.size() > 0) {
            m.largest_ = map.apply(largest_.transpose()).cwiseAbs().transpose();
        } else if (kept().rows() > 0 && kept().rows() == hessian_.tokens()) {
            m.largest_ = m.kept().cwiseAbs().colwise().maxCoeff().transpose();
        }
        return m;
    }

    /// The mean of 2 (A x) . (B (x~ - x)), tr(A C^T B^T), for A and B (out, in).
    double mixed(matrix_view a, matrix_view b, executor_ref executor) const {
        basic_matrix<double> const c = difference();
        constexpr index_t rows_per_task = 128;
        basic_vector<double> part = basic_vector<double>::Zero(ceil_div(a.rows(), rows_per_task));
        executor.for_pieces(a.rows(), rows_per_task, [&](index_t begin, index_t end) {
            basic_matrix<double> const rows = b.middleRows(begin, end - begin).cast<double>(); // (end - begin, in)
            basic_matrix<double> product = basic_matrix<double>::Zero(rows.rows(), rows.cols());
            nn::products<double>::add(rows.rows(), features(), features(), 1, {rows.data(), rows.outerStride()},
                                      {c.data(), c.outerStride()}, product.data(), product.outerStride());
            part(begin / rows_per_task) = product.cwiseProduct(a.middleRows(begin, end - begin).cast<double>()).sum();
        });
        return part.sum();
    }

    void add_to_largest(matrix_view x) {
        if (x.rows() > 0) {
            float_vector const here = x.cwiseAbs().colwise().maxCoeff().transpose();
            largest_ = largest_.size() > 0 ? float_vector(largest_.cwiseMax(here)) : here;
        }
    }

    void add_to_hessian(matrix_view x, executor_ref executor) {
        if (index_t const begin = hessian_.tokens(); begin < kept_.rows()) {
            index_t const count = std::min(x.rows(), kept_.rows() - begin);
            kept_.middleRows(begin, count) = x.topRows(count);
        }
        hessian_.add(x, executor);
        factor_ = {};
        mapped_ = {};
    }

    detent::hessian hessian_;
    matrix kept_;                 // (token, in)
    float_vector largest_;        // (in)
    basic_matrix<double> sum_;    // (in, in), sum (x~ - x) x^T; empty without the float model
    detent::hessian differences_; // of x~ - x
    mutable hessian_factor factor_;
    mutable factor_options factored_; // of `factor_`
    mutable std::shared_ptr<layer_inputs const> mapped_;
    mutable std::optional<input_map> map_; // of `mapped_`
};

} // namespace detent::inline DETENT_ABI

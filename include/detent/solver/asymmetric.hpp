// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cmath>

#include "detent/core/finite.hpp"
#include "detent/evidence/layer_inputs.hpp"
#include "detent/nn/triangular.hpp"
#include "detent/solver/gptq.hpp"

namespace detent::inline DETENT_ABI {

/// Which part of the difference between the streams weights are corrected for.
enum class correction {
    whole,        ///< the least-squares solution
    later_columns ///< what a column's difference can be made up for by later columns of the sweep
};

/// The weights W* that, read with the quantized stream's inputs, come nearest to what `w` (out, in) gives with the
/// float stream's: with `strength` a, damped H = R R^T in the order of the sweep, and N = C R^-T,
///     W* = W + a W N R^-1 = W + a W C H^-1,
/// the solution of min |W X~ - W* X|^2 + damping |W* - W|^2 for a = 1. Of a correction by later columns, only what is
/// strictly above the diagonal of N counts.
template <class Scalar>
matrix corrected_weights(matrix_view w, basic_layer_inputs<Scalar> const& known, basic_hessian_factor<Scalar> const& f,
                         double strength, correction kind, executor_ref executor = {}) {
    index_t const in = w.cols();
    basic_matrix<Scalar> const c = known.difference();
    basic_matrix<Scalar> n(in, in); // N, in the order of the sweep
    constexpr index_t piece = 128;
    executor.for_pieces(in, piece, [&](index_t begin, index_t end) {
        for (index_t i = begin; i < end; ++i) {
            for (index_t j = 0; j < in; ++j) {
                n(i, j) = c(f.order[static_cast<std::size_t>(i)], f.order[static_cast<std::size_t>(j)]);
            }
        }
        nn::divide_by_transposed_upper(end - begin, in, &n(begin, 0), in, f.r.data(), in);
        for (index_t i = begin; i < end && kind == correction::later_columns; ++i) {
            std::fill_n(&n(i, 0), i + 1, Scalar{0});
        }
    });
    matrix corrected = w; // (out, in)
    executor.for_pieces(w.rows(), piece, [&](index_t begin, index_t end) {
        index_t const rows = end - begin;
        auto const ordered = converted<Scalar>(take_columns(middle_rows(w, begin, rows), f.order)); // (rows, in)
        basic_matrix<Scalar> moved = zero_matrix<Scalar>(rows, in);
        nn::products<Scalar>::add(rows, in, in, 1, {ordered.data(), in}, {n.data(), in}, moved.data(), in);
        nn::divide_by_upper(rows, in, moved.data(), in, f.r.data(), in);
        for (index_t row = 0; row < rows; ++row) {
            for (index_t j = 0; j < in; ++j) {
                corrected(begin + row, f.order[static_cast<std::size_t>(j)]) +=
                    static_cast<float>(static_cast<Scalar>(strength) * moved(row, j));
            }
        }
    });
    return corrected;
}

/// GPTQ towards the output of the float model: the weights are first corrected for what the quantization of earlier
/// layers did to the inputs, then rounded as `rounding` says. The kind of correction is part of the type; see `gptaq`
/// and `qronos`.
template <correction Kind, class Scalar = double> struct asymmetric_gptq {
    using evidence = layer_inputs;

    gptq<Scalar> rounding = {};
    double strength = Kind == correction::later_columns ? 0.25 : 1.0; ///< share of the correction; 0 is GPTQ

    /// As `gptq::solve`; the loss in the report is the distance to the corrected weights. @throws error as that.
    solution solve(matrix_view w, layer_inputs const& known, problem const& p, executor_ref executor = {}) const {
        return rounding.solve(correct(w, known, executor), factor(known, executor), p, executor);
    }

    /// The weights that `solve` rounds: `w` (out, in) itself where there is no factor.
    matrix correct(matrix_view w, layer_inputs const& known, executor_ref executor = {}) const {
        expect_features(known.features(), w);
        expect_option(is_finite(strength), "correction", "strength", strength, "finite");
        hessian_factor const& f = factor(known, executor);
        if (f.r.size() == 0) {
            return w;
        }
        if (!known.has_difference()) {
            raise(error("inputs", "of the float stream are needed too"));
        }
        matrix const corrected = corrected_weights(w, known, f, strength, Kind, executor);
        if (all_finite(w) && !all_finite(corrected)) {
            raise(error("corrected weights", "are not finite; a larger damping may help"));
        }
        return corrected;
    }

    /// What rounds the weights once they are corrected.
    gptq<Scalar> after_correction() const { return rounding; }

    friend constexpr bool operator==(asymmetric_gptq const&, asymmetric_gptq const&) = default;

private:
    hessian_factor const& factor(layer_inputs const& known, executor_ref executor) const {
        return known.factor(rounding.factoring(), executor);
    }
};

/// GPTAQ (Li et al., "Efficient Finetuning-Free Quantization for Asymmetric Calibration"): the difference of an input
/// is made up for by later columns only, and a quarter of it, as the published code does. That code multiplies its
/// correction by rounded weights, with results that depend on its block size; here it is by the original weights.
template <class Scalar = double> using gptaq = asymmetric_gptq<correction::later_columns, Scalar>;

/// Correction in the manner of Qronos (Zhang et al., "Correcting the Past by Shaping the Future"): the whole
/// least-squares solution. It is the efficient form of that paper but for the first column, which the paper rounds with
/// all other weights held at their original values.
template <class Scalar = double> using qronos = asymmetric_gptq<correction::whole, Scalar>;

#if defined(DETENT_COMPILED)
extern template matrix corrected_weights<double>(matrix_view, layer_inputs const&, hessian_factor const&, double,
                                                 correction, executor_ref);
#endif

} // namespace detent::inline DETENT_ABI

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <chrono>
#include <string>
#include <utility>
#include <variant>

#include "detent/calibrate/quantize_linear.hpp"
#include "detent/core/eigen.hpp"
#include "detent/core/error.hpp"
#include "detent/core/executor.hpp"
#include "detent/core/function_ref.hpp"
#include "detent/core/stopwatch.hpp"
#include "detent/evidence/layer_inputs.hpp"
#include "detent/matrix/dequantize.hpp"
#include "detent/matrix/solution.hpp"
#include "detent/model/block.hpp"
#include "detent/model/linear_layer.hpp"
#include "detent/solver/joint_search.hpp"

namespace detent::inline DETENT_ABI {

DETENT_INLINE layer_report quantize_linear(linear_layer& layer, layer_place place, layer_inputs const& inputs,
                                           quantize_layer quantize, executor_ref executor) {
    if (!std::holds_alternative<matrix>(layer.weight)) {
        throw error("layer '" + layer.name + "'", "is quantized already");
    }
    try {
        auto const& weights = std::get<matrix>(layer.weight);
        auto const start = std::chrono::steady_clock::now();
        quantization q = [&] {
            stopwatch::section const timed(executor.watch(), work_kind::solving);
            return quantize(weights, inputs, place);
        }();
        std::chrono::duration<double> const seconds = std::chrono::steady_clock::now() - start;
        stopwatch::section const timed(executor.watch(), work_kind::layer_errors);
        matrix const decoded = dequantize(q.weights);
        if (!decoded.allFinite()) { // a map that is undone may go beyond what codes stand for
            throw error("weights", "are rounded to numbers beyond all floats");
        }
        auto const share = [](double missed, double whole) { return whole > 0 ? missed / whole : 0; };
        layer_report report{.name = layer.name,
                            .place = place,
                            .shape = layer.shape(),
                            .tokens = inputs.hessian().tokens(),
                            .bits_per_weight = q.weights.bits_per_weight(),
                            .effective_bits = q.weights.effective_bits(),
                            .weak_columns = q.weights.weak.count(),
                            .error = share(inputs.hessian().quadratic(weights - decoded, executor),
                                           inputs.hessian().quadratic(weights, executor)),
                            .seconds = seconds.count(),
                            .solve = std::move(q.report)};
        auto const compare_with_floats = [&](layer_inputs const& seen, matrix const& w, matrix const& rounded) {
            matrix const nothing = matrix::Zero(w.rows(), w.cols());
            report.float_error =
                share(seen.output_error(w, rounded, executor), seen.output_error(w, nothing, executor));
        };
        if (inputs.has_difference()) {
            compare_with_floats(inputs, weights, decoded);
        } else if (q.input && inputs.kept().rows() > 0) { // inputs are rounded after they are mapped
            input_map const& map = q.weights.map;
            compare_with_floats(rounded_inputs(map.apply(inputs.kept(), executor), *q.input, executor),
                                map.of_weights(weights, executor), map.of_weights(decoded, executor));
        }
        layer.weight = std::move(q.weights);
        layer.input = std::move(q.input);
        return report;
    } catch (error const& e) {
        throw error("layer '" + layer.name + "'", e.what());
    }
}

} // namespace detent::inline DETENT_ABI

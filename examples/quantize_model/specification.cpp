// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "specification.hpp"

#include "detent/quantizer/catalogue.hpp"

int bits_of_code(detent::spec const& s) { return detent::bits_of(s); }

detent::quantization quantize_by(detent::spec const& s, detent::matrix const& w, detent::layer_inputs const& inputs,
                                 detent::executor_ref executor) {
    return detent::quantize(w, inputs, s, executor);
}

detent::quantization quantize_with(detent::fake_quantizer<float>::tiles const& scales, detent::spec const& s,
                                   detent::matrix const& w, detent::layer_inputs const& inputs,
                                   detent::executor_ref executor) {
    return detent::quantize_with(scales, w, inputs, s, executor);
}

detent::block_learner make_learner(detent::spec const& s, detent::executor_ref executor, detent::progress report) {
    auto const inputs = detent::dynamic_input(s);
    return {s.learning, detent::fake_quantizer<float>(detent::find_grid(s.grid), s.granularity.cols, s.format),
            inputs ? std::optional(inputs->grid()) : std::nullopt, executor, std::move(report)};
}

detent::quantization quantize_embeddings_by(detent::spec const& s, detent::matrix const& table,
                                            detent::executor_ref executor) {
    return detent::quantize_embeddings(table, s, executor);
}

detent::vector shared_shifts_by(detent::spec const& s, std::span<detent::matrix const* const> weights,
                                detent::matrix_view inputs, detent::executor_ref executor) {
    return detent::shared_shifts(weights, inputs, s, executor);
}

std::optional<detent::activation_quantizer> dynamic_input_of(detent::spec const& s) { return detent::dynamic_input(s); }

void check_specification(std::string const& text) { detent::check(detent::spec::parse(text)); }

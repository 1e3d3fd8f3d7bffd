// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "specification.hpp"

#include "detent/quantizer/catalogue.hpp"

int bits_of_code(detent::spec const& s) { return detent::bits_of(s); }

detent::quantization quantize_by(detent::spec const& s, detent::matrix const& w, detent::layer_inputs const& inputs,
                                 detent::executor_ref executor) {
    return detent::quantize(w, inputs, s, executor);
}

void check_specification(std::string const& text) { detent::check(detent::spec::parse(text)); }

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "specification.hpp"

#include "detent/calibrate/quantize_named.hpp"
#include "detent/quantizer/catalogue.hpp"

std::vector<detent::layer_report> quantize_by(detent::decoder& model, detent::spec const& s,
                                              detent::calibration const& text, detent::executor_ref executor,
                                              detent::progress const& report) {
    return detent::quantize_decoder(model, s, text, executor, report);
}

void check_specification(detent::spec const& s) { detent::check(s); }

void check_specification(detent::spec const& s, detent::decoder const& model) { detent::check(s, model); }

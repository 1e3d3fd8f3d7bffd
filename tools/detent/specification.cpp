// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "detent/calibrate/quantize_named.hpp"
#include "detent/model/outline.hpp"
#include "specification.hpp"

std::vector<detent::layer_report> quantize_by(detent::decoder& model, detent::spec const& s,
                                              detent::calibration const& text, detent::executor_ref executor,
                                              detent::progress const& report) {
    return detent::quantize_decoder(model, s, text, executor, report);
}

std::vector<detent::layer_report> quantize_by(detent::decoder& model, detent::block_sequence& blocks,
                                              detent::spec const& s, detent::calibration const& text,
                                              detent::executor_ref executor, detent::progress const& report) {
    return detent::quantize_decoder(model, blocks, s, text, executor, report);
}

std::uint64_t activations_of(detent::decoder const& planned, detent::spec const& s, detent::calibration const& text) {
    return detent::activation_bytes(planned, s, text);
}

bool goes_by_blocks(detent::spec const& s) { return !detent::needs_all_blocks(s); }

detent::memory_plan memory_of(detent::decoder const& planned, detent::spec const& s, detent::calibration const& text) {
    return detent::plan_memory(planned, s, text);
}

detent::decoder planned(detent::model_configuration const& c, detent::spec const& s,
                        detent::io::checkpoint const& original) {
    return detent::outline_decoder(c, s, [&](std::string const& name) { return original.contains(name); });
}

detent::decoder planned(detent::model_configuration const& c, detent::spec const& s) {
    return detent::outline_decoder(c, s);
}

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// A specification. What is read and possible quantizes a small matrix; the first byte says how large its weights and
// inputs are. What comes out is finite.

#include <cmath>
#include <random>

#include "detent/matrix/dequantize.hpp"
#include "detent/quantizer/catalogue.hpp"
#include "detent/quantizer/parse_spec.hpp"
#include "fuzz.hpp"

namespace {

using namespace detent;

matrix random_numbers(index_t rows, index_t cols, unsigned seed) {
    std::mt19937 random(seed);
    matrix numbers(rows, cols);
    for (index_t i = 0; i < numbers.size(); ++i) {
        numbers.data()[i] = static_cast<float>(random() >> 8) * 0x1p-23F - 1;
    }
    return numbers;
}

layer_inputs inputs_for(spec const& s, matrix const& x) {
    if (s.needs_float_stream()) {
        layer_inputs both(x.cols());
        matrix y = x;
        y.array() *= 1.01F;
        both.add(x, y.allFinite() ? y : x);
        return both;
    }
    return layer_inputs::of(x);
}

void quantize_small(std::string_view text, float weight, float input) {
    spec const s = spec::parse(std::string(text));
    if (s.learning) {
        return; // whole blocks are learned, not matrices
    }
    check(s);
    matrix const w = weight * random_numbers(16, 48, 1);
    matrix const x = input * random_numbers(64, 48, 2);
    auto const q = quantize(w, inputs_for(s, x), s);
    if (q.weights.map.empty()) { // else what is stored is finite, but not always what it stands for without the map
        fuzz::expect(dequantize(q.weights).allFinite(), "what is stored is finite");
    }
    for (float const scale : q.weights.scales.scales) {
        fuzz::expect(scale > 0 && std::isfinite(scale), "scales are positive");
    }
}

} // namespace

DETENT_FUZZ_TARGET(specification) {
    constexpr float sizes[] = {1, 1e-42F, 3e38F, 0, 1e18F, 1e-30F, 1e20F, 1e10F};
    if (size == 0 || size > 200) {
        return 0;
    }
    fuzz::attempt(
        [&] { quantize_small(fuzz::text_of(data + 1, size - 1), sizes[data[0] % 8], sizes[data[0] / 8 % 8]); });
    return 0;
}

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "detent/fwd.hpp"

namespace detent {

// What a header can say with the declarations alone.
bool has_seen_inputs(hessian const& h);

} // namespace detent

#include <type_traits>

#include <gtest/gtest.h>

#include "detent/calibrate/quantize_decoder.hpp"
#include "detent/detent.hpp"
#include "detent/model/encoder.hpp"
#include "detent/quantizer/catalogue.hpp"

namespace detent {

bool has_seen_inputs(hessian const& h) { return h.tokens() > 0; }

} // namespace detent

namespace {

using namespace detent;

TEST(fwd, declares_what_the_headers_define) {
    EXPECT_FALSE(has_seen_inputs(hessian(3)));
    static_assert(std::is_same_v<layer_inputs, basic_layer_inputs<>>);
    static_assert(sizeof(named_quantizer) > 0 && sizeof(decoder) > 0 && sizeof(text_encoder) > 0);
}

} // namespace

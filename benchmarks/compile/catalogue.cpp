// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// A quantizer that is named at run time.
#include "detent/quantizer/catalogue.hpp"

using namespace detent;

double bits_of_named(matrix const& w, hessian const& h, char const* specification) {
    return quantize(w, h, spec::parse(specification)).weights.bits_per_weight();
}

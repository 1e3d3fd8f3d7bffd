// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "quantizer/type_matrix_run.hpp"

namespace detent::test {

INSTANTIATE_TYPED_TEST_SUITE_P(sample_2, type_matrix, as_types<sample_2>::type);

} // namespace detent::test

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "quantizer/type_matrix_rows.hpp"

namespace detent::test {
namespace {

using other_grids = type_list<e2m1, e3m2, e4m3, nf4, ternary, own>;
static_assert(all_of(other_grids{}, []<class G>(std::type_identity<G>) { return row_makes_sense<G>(); }));

} // namespace
} // namespace detent::test

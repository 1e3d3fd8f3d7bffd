// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "quantizer/type_matrix_rows.hpp"

namespace detent::test {
namespace {

using integer_grids = type_list<int_grid<4>, int3s, int_grid<2>, int8s, int1s, own_affine>;
static_assert(all_of(integer_grids{}, []<class G>(std::type_identity<G>) { return row_makes_sense<G>(); }));

} // namespace
} // namespace detent::test

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <variant>

#include "detent/granularity/granularity.hpp"
#include "detent/grid/grid.hpp"
#include "detent/matrix/solution.hpp"
#include "detent/model/decoder.hpp"
#include "detent/solver/problem.hpp"
#include "detent/solver/rtn.hpp"

namespace detent::test {

/// Rounds the layers of all blocks to nearest.
template <Grid G, class Range> void round_blocks(decoder& model, G const& grid, Range const& range, index_t group) {
    problem_of const p{grid, per_tile{1, group}, range};
    for (block& b : model.blocks) {
        for (layer_place const place : b.places()) {
            auto& weight = b.linear(place).weight;
            weight = pack(rtn{}.solve(std::get<matrix>(weight), {}, p));
        }
    }
}

} // namespace detent::test

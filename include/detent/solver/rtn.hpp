// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include "detent/solver/solver.hpp"

namespace detent::inline DETENT_ABI {

/// Rounds every weight to the nearest number of its grid.
struct rtn {
    using evidence = no_evidence;

    /// Codes and scales for `w` (out, in). @throws error when a weight is not finite.
    solution solve(matrix_view w, no_evidence, problem const& p, executor_ref executor = {}) const {
        solution s = p.begin(w);
        p.fit_all(w, s, executor);
        executor.for_pieces(w.rows(), 16, [&](index_t first, index_t last) {
            float_vector scales(w.cols());
            float_vector zeros(w.cols());
            float_vector numbers(w.cols());
            for (index_t row = first; row < last; ++row) {
                s.scales_of_row(row, scales.data(), zeros.data());
                p.round(w.cols(), w.data() + row * w.outerStride(), scales.data(), zeros.data(), &s.code_at(row, 0),
                        numbers.data());
            }
        });
        return s;
    }

    friend constexpr bool operator==(rtn, rtn) = default;
};

} // namespace detent::inline DETENT_ABI

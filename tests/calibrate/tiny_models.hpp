// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "detent/core/executor.hpp"
#include "detent/core/thread_team.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/io/tokens.hpp"
#include "detent/model/load.hpp"
#include "detent/scale/minmax.hpp"
#include "detent/solver/gptq.hpp"

namespace detent::test {

inline std::filesystem::path model_directory(std::string const& name) {
    return std::filesystem::path(DETENT_EXAMPLES_DIR) / "models" / name;
}
inline std::vector<nn::token_id> calibration_text() {
    return io::read_tokens(DETENT_EXAMPLES_DIR "/text/novels_calibration.txt");
}
inline std::vector<nn::token_id> evaluation_text() {
    return io::read_tokens(DETENT_EXAMPLES_DIR "/text/novels_evaluation.txt");
}

/// Every test may use two threads.
inline executor_ref two_threads() {
    static thread_team executor(2);
    return executor;
}

/// Quantizes layers by GPTQ or to nearest, with a grid, groups of `group` columns (0: rows) and its default range.
template <Grid G, class Range = minmax_range> struct layer_quantizer {
    index_t group = 0;
    bool to_nearest = false;
    gptq<> options = {};
    executor_ref executor = two_threads();

    quantization operator()(matrix const& w, hessian const& h, layer_place = {}) const {
        problem_of const p{G{}, per_tile{1, group}, Range{}};
        solution const s = to_nearest ? rtn{}.solve(w, {}, p, executor) : options.solve(w, h, p, executor);
        return {pack(s), s.report};
    }
};

} // namespace detent::test

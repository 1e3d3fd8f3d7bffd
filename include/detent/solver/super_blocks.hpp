// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <string>
#include <vector>

#include "detent/core/error.hpp"
#include "detent/scale/two_level.hpp"
#include "detent/solver/rtn.hpp"
#include "detent/solver/solver.hpp"

namespace detent::inline DETENT_ABI {

/// Gives weights scales of two levels (`two_level_format`), as ggml's blocks Q2_K to Q6_K have them, and leaves the
/// codes to `inner`: scales are found first, by the squared errors of weights times the diagonal of the Hessian where
/// inputs were seen. What is subtracted from a tile is added to its weights before, so that `inner` rounds them to
/// integers from 0 on; their errors are the same. It becomes a zero point, in general no integer.
template <Solver Inner = rtn> struct super_blocks {
    static_assert(!corrects<Inner>, "solvers that move the weights first would move what is added to them");
    static_assert(!detent::wraps<wrapping::map, Inner>,
                  "scales are those of the mapped matrix: write transformed<T, super_blocks<Inner>>");

    using evidence = evidence_around<Inner>;

    Inner inner = {};

    /// Codes and scales for `w` (out, in). @throws error as `inner`, and unless grid and tiles are those of a format,
    /// scales f32 and rows of whole blocks of 256 weights.
    solution solve(matrix_view w, evidence const& known, problem const& p, executor_ref executor = {}) const {
        solution given = p.begin(w);
        two_level_format const& format = format_of(given);
        hessian const& h = known;
        std::vector<float> const importance = importance_of(h, w.cols());
        matrix shifted(w.rows(), w.cols());
        scale_store zeros = given.scales;
        executor.for_each(w.rows(), [&](index_t row) {
            std::array<two_level_scale, 16> scales;
            for (index_t col = 0; col < w.cols(); col += two_level_format::block) {
                float const* const weights = w.data() + row * w.outerStride() + col;
                fit_two_levels(format, weights, importance.empty() ? nullptr : importance.data() + col, scales);
                for (index_t k = 0; k < two_level_format::block; ++k) {
                    auto const s = scales[static_cast<std::size_t>(k / format.tile)];
                    shifted(row, col + k) = weights[k] + s.least;
                    given.scales.set(row, (col + k) / format.tile, {s.scale, 0});
                    zeros.set(row, (col + k) / format.tile, {s.scale, s.least / s.scale});
                }
            }
        });
        solution s = solve_with(inner, shifted, known, with_scales(p, given), executor);
        expect_valid(s.map.empty() && s.tile_of.empty(), "scales of two levels",
                     "are not for columns in another order");
        s.scales = std::move(zeros);
        return s;
    }

    friend bool operator==(super_blocks const&, super_blocks const&) = default;

private:
    /// @throws error unless there is a format of two levels for such a problem.
    static two_level_format const& format_of(solution const& s) {
        bool const shifted = !s.scales.zeros.empty();
        for (auto const& format : two_level_formats) {
            bool const numbers = s.table.front() == static_cast<float>(format.lowest_number()) &&
                                 s.table.back() == static_cast<float>(format.highest_number());
            if (s.table.size() == std::size_t{1} << format.bits && format.shifted == shifted && numbers &&
                s.tile == extents{1, format.tile} && s.scales.format == scale_format(float_format::f32)) {
                expect_option(s.shape.cols % two_level_format::block == 0, "scales of two levels", "number of inputs",
                              s.shape.cols, "a multiple of 256");
                return format;
            }
        }
        raise(error("scales of two levels", "are not for this grid, granularity and format of scales"));
    }

    /// How much errors of each column count; empty where no input was seen. Columns that were always 0 count a little.
    static std::vector<float> importance_of(hessian const& h, index_t cols) {
        if (h.features() != cols || h.tokens() == 0) {
            return {};
        }
        std::vector<float> numbers(static_cast<std::size_t>(cols));
        double mean = 0;
        for (index_t k = 0; k < cols; ++k) {
            mean += h(k, k) / static_cast<double>(cols);
        }
        for (index_t k = 0; k < cols; ++k) {
            double const one = mean > 0 ? h(k, k) / mean : 1.0;
            numbers[static_cast<std::size_t>(k)] = static_cast<float>(one + 1e-3);
        }
        return numbers;
    }
};

} // namespace detent::inline DETENT_ABI

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <concepts>
#include <cstddef>

#include "detent/grid/codebook_grid.hpp"
#include "detent/grid/fp_grid.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/quantizer/quantizer.hpp"
#include "detent/scale/mse.hpp"
#include "detent/scale/truncated.hpp"
#include "detent/solver/clipped.hpp"
#include "detent/solver/obq.hpp"
#include "detent/solver/owq.hpp"
#include "detent/solver/searched.hpp"
#include "detent/solver/transformed.hpp"
#include "detent/transform/hadamard.hpp"
#include "grid/own_grid.hpp"

// The matrix of all types that a quantizer is composed of, and a sample of it that is run.

namespace detent::test {

template <class... Ts> struct type_list { static constexpr std::size_t size = sizeof...(Ts); };

using int1s = int_grid<1, zero::none>;
using int3s = int_grid<3, zero::none>;
using int8s = int_grid<8, zero::none>;
using e3m2 = fp_grid<3, 2>;
using own = powers_of_two;
using own_affine = half_up;
using all_grids =
    type_list<int_grid<4>, int3s, int_grid<2>, int8s, int1s, e2m1, e3m2, e4m3, nf4, ternary, own, own_affine>;

using block = per_block<8, 16>;
using all_granularities = type_list<per_tensor, per_channel, per_group<32>, block, per_tile>;
using all_ranges = type_list<absmax_range, minmax_range, mse_range, truncated_range>;
using all_solvers = type_list<rtn, gptq<>, obq, gptaq<>, qronos<>>;

/// What may be around a solver: nothing, or one of these.
struct bare {
    template <class S> using around = S;
};
struct weak {
    template <class S> using around = owq<S>;
};
struct clip {
    template <class S> using around = clipped<S>;
};
struct search {
    template <class S> using around = searched<S>;
};
struct rotate {
    template <class S> using around = transformed<hadamard<16>, S>;
};
using all_wrappers = type_list<bare, weak, clip, search, rotate>;

/// Whether one wrapper makes sense directly around another: maps are outermost, weak columns are taken out once, and
/// only one of both chooses scales. Every pair that does not is a case of tests/must_fail.
template <class Outer, class Inner>
inline constexpr bool
    fit_together = std::same_as<Outer, bare> || std::same_as<Inner, bare> || std::same_as<Outer, rotate> ||
                   (std::same_as<Outer, weak> && (std::same_as<Inner, clip> || std::same_as<Inner, search>)) ||
                   (std::same_as<Inner, weak> && (std::same_as<Outer, clip> || std::same_as<Outer, search>));

/// One cell of the matrix: a solver within two wrappers.
template <class G, class P, class R, class S, class Outer = bare, class Inner = bare> struct cell {
    static_assert(fit_together<Outer, Inner>);
    using grid = G;
    using granularity = P;
    using range = R;
    using base = S;
    using outer = Outer;
    using inner = Inner;
    using solver = typename Outer::template around<typename Inner::template around<S>>;
    using type = detent::quantizer<G, P, solver, R>;
};

// The sample: every grid, granularity, range, solver, wrapper and pair of wrappers at least once.

using sample_1 = type_list<
    cell<int_grid<4>, per_tensor, minmax_range, rtn>, cell<int_grid<4>, per_group<32>, minmax_range, gptq<>>,
    cell<int_grid<4>, per_channel, truncated_range, gptq<>, weak>, cell<int_grid<4>, block, absmax_range, obq, clip>,
    cell<int_grid<4>, per_tile, mse_range, gptaq<>, search>,
    cell<int_grid<4>, per_group<32>, minmax_range, qronos<>, rotate>, cell<int3s, per_channel, absmax_range, obq>,
    cell<int3s, per_tensor, mse_range, gptq<>, clip>, cell<int3s, per_group<32>, truncated_range, obq, weak, clip>,
    cell<int3s, per_tile, absmax_range, gptq<>, rotate, rotate>,
    cell<int_grid<2>, per_channel, minmax_range, gptq<>, clip, weak>,
    cell<int_grid<2>, per_group<32>, mse_range, qronos<>, search>, cell<int_grid<2>, block, truncated_range, gptq<>>,
    cell<int_grid<2>, per_tile, absmax_range, gptaq<>, rotate, clip>>;

using sample_2 = type_list<
    cell<int8s, per_tensor, absmax_range, gptq<>>, cell<int8s, block, mse_range, rtn, weak, search>,
    cell<int8s, per_tile, truncated_range, obq, search, weak>, cell<int1s, per_channel, mse_range, gptq<>>,
    cell<int1s, per_group<32>, truncated_range, obq, clip>, cell<int1s, per_tensor, mse_range, gptaq<>, search>,
    cell<e2m1, per_group<32>, absmax_range, gptq<>, rotate, weak>,
    cell<e2m1, per_channel, mse_range, obq, rotate, search>, cell<e2m1, block, truncated_range, qronos<>>,
    cell<e2m1, per_tile, absmax_range, rtn, weak>, cell<e3m2, per_tensor, absmax_range, gptaq<>>,
    cell<e3m2, per_channel, mse_range, rtn, clip>, cell<e3m2, per_group<32>, truncated_range, gptq<>, weak, search>>;

using sample_3 = type_list<
    cell<e4m3, per_channel, absmax_range, rtn, rotate>, cell<e4m3, block, mse_range, gptq<>, clip, weak>,
    cell<e4m3, per_tile, truncated_range, gptaq<>, weak>, cell<nf4, per_group<32>, absmax_range, gptaq<>, weak, clip>,
    cell<nf4, per_channel, truncated_range, obq, search>, cell<nf4, per_tensor, mse_range, qronos<>, rotate, weak>,
    cell<ternary, per_channel, mse_range, gptq<>, weak>, cell<ternary, per_group<32>, truncated_range, qronos<>, clip>,
    cell<ternary, block, mse_range, obq, rotate, clip>, cell<own, per_channel, absmax_range, gptq<>>,
    cell<own, block, truncated_range, rtn, search>, cell<own, per_group<32>, mse_range, gptaq<>, rotate, search>,
    cell<own_affine, per_channel, minmax_range, qronos<>, weak, search>,
    cell<own_affine, per_tile, truncated_range, gptq<>, search, weak>,
    cell<own_affine, per_tensor, absmax_range, obq, rotate, weak>>;

} // namespace detent::test

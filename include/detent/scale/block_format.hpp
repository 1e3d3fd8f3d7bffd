// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include "detent/granularity/granularity.hpp"
#include "detent/grid/fp_grid.hpp"
#include "detent/scale/scale_format.hpp"

namespace detent::inline DETENT_ABI {

/// A number format that goes by one name: a grid, `Width` consecutive inputs that share a scale, and how that is
/// stored. `quantizer_of` and `activations_of` make quantizers of it.
template <Grid G, index_t Width, scale_kind Scale> struct block_format {
    using grid = G;
    using granularity = per_group<Width>;
    static constexpr index_t width = Width;
    static constexpr scale_format format = Scale;
};

/// The formats of OCP MX: groups of 32 with a power of two.
using mxfp4 = block_format<e2m1, 32, scale_kind::e8m0>;
using mxfp6_e2m3 = block_format<fp_grid<2, 3>, 32, scale_kind::e8m0>;
using mxfp6_e3m2 = block_format<fp_grid<3, 2>, 32, scale_kind::e8m0>;
using mxfp8_e4m3 = block_format<e4m3, 32, scale_kind::e8m0>;
using mxfp8_e5m2 = block_format<e5m2, 32, scale_kind::e8m0>;
/// NVIDIA's: groups of 16 with an E4M3 scale in units of a float for the matrix.
using nvfp4 = block_format<e2m1, 16, scale_kind::ue4m3>;

} // namespace detent::inline DETENT_ABI

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <gtest/gtest.h>

#include "detent/grid/codebook_grid.hpp"
#include "detent/grid/fp_grid.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/scale/absmax.hpp"
#include "scale/ranges.hpp"

namespace {

using namespace detent;
using test::row_of;

struct positive_values {
    static constexpr std::array<float, 4> values{0, 1, 2, 4};
};
static_assert(RangeFor<absmax_range, int_grid<4>> && RangeFor<absmax_range, int_grid<4, zero::none>> &&
              RangeFor<absmax_range, e2m1> && RangeFor<absmax_range, nf4>);
static_assert(!RangeFor<absmax_range, codebook_grid<positive_values>>);

TEST(absmax_range, the_largest_weight_sets_the_scale) {
    absmax_range const range;
    auto const f32 = float_format::f32;
    EXPECT_EQ(range.fit(int_grid<4, zero::none>{}, row_of({3, -1, 2}), f32), (tile_scale{6.0F / 15, 0}));
    EXPECT_EQ(range.fit(int_grid<4>{}, row_of({3, -1, 2}), f32), (tile_scale{6.0F / 15, 8}));
    EXPECT_EQ(range.fit(int_grid<3>{}, row_of({-7, 1}), f32), (tile_scale{2, 4}));
    EXPECT_EQ(range.fit(int_grid<2>{}, row_of({-3, 1}), f32), (tile_scale{2, 2}));
    EXPECT_EQ(range.fit(int_grid<1, zero::none>{}, row_of({-3, 1}), f32), (tile_scale{3, 0}));
    EXPECT_EQ(range.fit(e2m1{}, row_of({3, -12}), f32), (tile_scale{2, 0}));
    EXPECT_EQ(range.fit(nf4{}, row_of({0.25F, -0.5F}), f32), (tile_scale{0.5F, 0}));
    EXPECT_EQ(range.fit(ternary{}, row_of({0.25F, 0.5F}), f32), (tile_scale{0.5F, 0}));
}

TEST(absmax_range, weights_of_one_sign_use_the_same_scale_as_their_negatives) {
    matrix const positive = row_of({1, 2, 3.5F});
    for (auto const format : {float_format::f16, float_format::f32}) {
        auto const s = absmax_range{}.fit(int_grid<4>{}, positive, format);
        EXPECT_EQ(s, absmax_range{}.fit(int_grid<4>{}, -positive, format));
        EXPECT_EQ(s, (tile_scale{store(format, 7.0F / 15), 8}));
    }
}

TEST(absmax_range, affine_and_symmetric_integers_agree) {
    matrix const w = row_of({-1.3F, 0.2F, 0.77F, 1.1F, -0.05F});
    auto const affine = absmax_range{}.fit(int_grid<4>{}, w, float_format::f16);
    auto const symmetric = absmax_range{}.fit(int_grid<4, zero::none>{}, w, float_format::f16);
    for (float const x : w.reshaped()) {
        code const c = encode(int_grid<4>{}, x, affine);
        EXPECT_EQ(c, encode(int_grid<4, zero::none>{}, x, symmetric));
        EXPECT_EQ(decode(int_grid<4>{}, c, affine), decode(int_grid<4, zero::none>{}, c, symmetric));
    }
}

TEST(absmax_range, zeros_get_the_scale_of_minus_one_to_one) {
    EXPECT_EQ(absmax_range{}.fit(nf4{}, matrix::Zero(2, 3), float_format::f16), (tile_scale{1, 0}));
    EXPECT_EQ(absmax_range{}.fit(int_grid<2>{}, matrix::Zero(2, 3), float_format::f32), (tile_scale{2.0F / 3, 2}));
}

TEST(absmax_range, tiny_and_huge_weights_get_the_scale_at_the_end) {
    EXPECT_EQ(absmax_range{}.fit(nf4{}, row_of({1e-20F, 0}), float_format::f16).scale, 0x1p-24F);
    EXPECT_EQ(absmax_range{}.fit(nf4{}, row_of({0x1p-20F, 0}), float_format::f16).scale, 0x1p-20F);
    EXPECT_EQ(absmax_range{}.fit(nf4{}, row_of({1e20F, 0}), float_format::f16).scale, 65504);
}

} // namespace

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <concepts>

#include "detent/core/error.hpp"
#include "detent/core/index.hpp"
#include "detent/core/value.hpp"

namespace detent::inline DETENT_ABI {

/// Who shares a scale: the shape of the tiles a weight matrix (out, in) is cut into. Tiles at the lower and right edge
/// may be smaller.
template <class P>
concept Granularity = Value<P> && requires(P const granularity, extents shape) {
    { granularity.tile(shape) } -> std::same_as<extents>;
};

/// A size that is a value instead of part of the type.
inline constexpr index_t dynamic = -1;

/// One scale for the whole matrix.
struct per_tensor {
    static constexpr extents tile(extents shape) { return shape; }
    friend constexpr bool operator==(per_tensor, per_tensor) = default;
};

/// One scale for each output channel (row).
struct per_channel {
    static constexpr extents tile(extents shape) { return {1, shape.cols}; }
    friend constexpr bool operator==(per_channel, per_channel) = default;
};

/// One scale for each token (row) of activations (token, feature). `per_group` cuts the features of a token as it does
/// the inputs of a row of weights.
struct per_token {
    static constexpr extents tile(extents shape) { return {1, shape.cols}; }
    friend constexpr bool operator==(per_token, per_token) = default;
};

/// One scale for each `Width` consecutive inputs of a row; `per_group<>{64}` takes the width at run time, and `tile`
/// throws `error` when it is not positive, as do those below.
template <index_t Width = dynamic> struct per_group {
    static_assert(Width > 0, "a group has at least one column");
    static constexpr extents tile(extents shape) { return {1, std::min(Width, shape.cols)}; }
    friend constexpr bool operator==(per_group, per_group) = default;
};
template <> struct per_group<dynamic> {
    index_t width = 128;
    constexpr extents tile(extents shape) const {
        expect_option(width > 0, "per_group", "width", width, "positive");
        return {1, std::min(width, shape.cols)};
    }
    friend constexpr bool operator==(per_group, per_group) = default;
};

/// One scale for each block of `Rows` x `Cols` weights; `per_block<>{32, 32}` takes the shape at run time.
template <index_t Rows = dynamic, index_t Cols = dynamic> struct per_block {
    static_assert(Rows > 0 && Cols > 0, "a block has at least one row and one column");
    static constexpr extents tile(extents shape) { return {std::min(Rows, shape.rows), std::min(Cols, shape.cols)}; }
    friend constexpr bool operator==(per_block, per_block) = default;
};
template <> struct per_block<dynamic, dynamic> {
    index_t rows = 32;
    index_t cols = 32;
    constexpr extents tile(extents shape) const {
        expect_option(rows > 0, "per_block", "number of rows", rows, "positive");
        expect_option(cols > 0, "per_block", "number of columns", cols, "positive");
        return {std::min(rows, shape.rows), std::min(cols, shape.cols)};
    }
    friend constexpr bool operator==(per_block, per_block) = default;
};

/// Any of the granularities above, known only at run time: a tile of `rows` x `cols` weights, 0 for all there are.
struct per_tile {
    index_t rows = 1;
    index_t cols = 0;
    constexpr extents tile(extents shape) const {
        expect_option(rows >= 0, "per_tile", "number of rows", rows, "0 or more");
        expect_option(cols >= 0, "per_tile", "number of columns", cols, "0 or more");
        return {rows == 0 ? shape.rows : std::min(rows, shape.rows),
                cols == 0 ? shape.cols : std::min(cols, shape.cols)};
    }
    friend constexpr bool operator==(per_tile, per_tile) = default;
};

/// The columns of a tile as far as the type of a granularity tells: 0 for whole rows, `dynamic` where only its value
/// does, as for a user's own granularity.
template <Granularity P> inline constexpr index_t cols_in_type = dynamic;
template <> inline constexpr index_t cols_in_type<per_tensor> = 0;
template <> inline constexpr index_t cols_in_type<per_channel> = 0;
template <index_t Width> inline constexpr index_t cols_in_type<per_group<Width>> = Width;
template <index_t Rows, index_t Cols> inline constexpr index_t cols_in_type<per_block<Rows, Cols>> = Cols;

} // namespace detent::inline DETENT_ABI

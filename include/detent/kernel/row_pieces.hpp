// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <span>

#include "detent/core/executor.hpp"
#include "detent/core/index.hpp"
#include "detent/kernel/epilogue.hpp"
#include "detent/kernel/weak_columns.hpp"
#include "detent/matrix/epilogue.hpp"
#include "detent/matrix/packed_view.hpp"

// Products cut into pieces of rows and tokens for the threads. What a kernel gets of borrowed matrices are views with
// floats as scales and readable bytes after the last row: these are made piece by piece, where they stay in the cache.

namespace detent::inline DETENT_ABI::kernel {

/// Whether kernels can read these scales and codes where they are.
inline bool is_readable(packed_view const& w) noexcept { return w.scales != nullptr && w.readable >= 64; }

/// How many rows are last ones, after whose begin fewer bytes may be read than kernels do.
inline index_t unreadable_rows(packed_view const& w) noexcept {
    index_t const lacking = std::max<index_t>(64 - w.readable, 0);
    return std::min(w.shape.rows, ceil_div(lacking, std::max<index_t>(w.row_bytes, 1)));
}

/// Writes `n` stored scales from number `i` on as floats.
inline void load_scales(packed_view const& w, index_t i, index_t n, float* to) noexcept {
    std::uint8_t const* const from = w.stored_scales + i * (bits_of(w.stored_as) / 8);
    switch (w.stored_as.kind) {
    case scale_kind::f16:
        return to_floats(float_format::f16, from, n, to);
    case scale_kind::bf16:
        return to_floats(float_format::bf16, from, n, to);
    case scale_kind::f32:
        return to_floats(float_format::f32, from, n, to);
    case scale_kind::e8m0:
    case scale_kind::ue4m3:
        break;
    }
    static std::array<std::array<float, 256>, 2> const numbers = [] {
        std::array<std::array<float, 256>, 2> all;
        for (std::size_t byte = 0; byte < 256; ++byte) {
            all[0][byte] = scale_of(scale_kind::e8m0, static_cast<std::uint8_t>(byte));
            all[1][byte] = scale_of(scale_kind::ue4m3, static_cast<std::uint8_t>(byte));
        }
        return all;
    }();
    auto const& table = numbers[w.stored_as.kind == scale_kind::e8m0 ? 0 : 1];
    std::transform(from, from + n, to, [&](std::uint8_t byte) { return table[byte] * w.stored_as.unit; });
}

/// Bytes that `with_readable_rows` needs for at most `rows` rows.
inline index_t bytes_of_readable_rows(packed_view const& w, index_t rows) noexcept {
    if (is_readable(w)) {
        return 0;
    }
    return 2 * rows * w.tiles_per_row * static_cast<index_t>(sizeof(float)) + unreadable_rows(w) * w.row_bytes + 64;
}

/// Calls `f(view, offset)` for parts of the rows [first, last) of `w`: those of the view are `w`'s from `offset` on,
/// and kernels can read its scales and bytes. `memory` has as many bytes as `bytes_of_readable_rows` says.
template <class F>
void with_readable_rows(packed_view const& w, index_t first, index_t last, std::uint8_t* memory, F const& f) {
    index_t const in_place = w.shape.rows - unreadable_rows(w); // rows whose codes are read where they are
    index_t const tiles = w.tiles_per_row;
    auto* const scales = reinterpret_cast<float*>(memory);
    auto const part = [&](index_t begin, index_t end, bool copied) {
        if (begin >= end) {
            return;
        }
        packed_view rows = w;
        rows.shape.rows = end - begin;
        rows.tile.rows = 1; // as parts may begin within a tile, each row gets its scales
        rows.scales = scales;
        float* const zeros = scales + (end - begin) * tiles;
        rows.zeros = w.zeros != nullptr ? zeros : nullptr;
        for (index_t r = begin; r < end; ++r) {
            index_t const from = r / w.tile.rows * tiles;
            float* const to = scales + (r - begin) * tiles;
            w.scales != nullptr ? void(std::copy_n(w.scales + from, tiles, to)) : load_scales(w, from, tiles, to);
            if (w.zeros != nullptr) {
                std::copy_n(w.zeros + from, tiles, zeros + (r - begin) * tiles);
            }
        }
        rows.codes = w.codes + begin * w.row_bytes;
        if (copied) {
            auto* const codes = reinterpret_cast<std::uint8_t*>(scales + 2 * (end - begin) * tiles);
            std::memcpy(codes, rows.codes, static_cast<std::size_t>((end - begin) * w.row_bytes));
            rows.codes = codes;
        }
        rows.readable = 64;
        if (w.weak.count > 0) {
            rows.weak.values = w.weak.values + begin * (bits_of(w.weak.format) / 8);
        }
        f(rows, begin);
    };
    if (is_readable(w)) {
        f(w, index_t{0});
        return;
    }
    part(first, std::min(last, in_place), false);
    part(std::max(first, in_place), last, true);
}

/// Rows [first, last) of `w` and `tokens` inputs from number `token` on: y[t * y_stride + r] is for the t-th of these
/// and row r.
struct row_piece {
    packed_view const& w;
    index_t first;
    index_t last;
    index_t token;
    index_t tokens;
    float* y;
    index_t y_stride;
};

/// Whether a product is computed together with the one before it, whose outputs it multiplies by.
inline bool is_gated_by(matrix_product const& p, matrix_product const& before) noexcept {
    return p.after.times != nullptr && p.after.times == before.y && p.w.shape.rows == before.w.shape.rows;
}

/// How products are cut, and the memory of each worker.
struct piece_plan {
    index_t rows;   ///< of a piece, at most
    index_t tokens; ///< of a piece, at most
    index_t bytes;  ///< that a kernel's state of a worker takes
};

/// Calls `f(state, row_piece)` for pieces of all products, which `executor` runs as one loop, with a state for each
/// worker that `make(memory)` gives, and applies epilogues. The `tokens` inputs are those of y from number `begin` on.
/// The pieces do not depend on the number of workers.
template <class Make, class F>
void for_row_pieces(std::span<matrix_product const> products, index_t begin, index_t tokens, piece_plan const& plan,
                    scratch& memory, executor_ref executor, Make const& make, F const& f) {
    index_t all_rows = 0; // pieces of rows
    index_t copies = 0;   // bytes
    index_t sums = 0;     // of products whose epilogue reads what is in y, floats
    auto const leads = [&](std::size_t i) { return i == 0 || !is_gated_by(products[i], products[i - 1]); };
    for (std::size_t i = 0; i < products.size(); ++i) {
        matrix_product const& p = products[i];
        index_t const rows = std::min(plan.rows, p.w.shape.rows);
        all_rows += leads(i) ? ceil_div(p.w.shape.rows, plan.rows) : 0;
        copies = std::max(copies, bytes_of_readable_rows(p.w, rows));
        sums = std::max(sums, p.after.plus == p.y ? rows * std::min(plan.tokens, tokens) : 0);
    }
    auto const up = [](index_t bytes) { return ceil_div(bytes, 64) * 64; };
    index_t const bytes_of_sums = up(sums * static_cast<index_t>(sizeof(float)));
    index_t const of_worker = up(plan.bytes) + up(copies) + bytes_of_sums;
    index_t const pieces = all_rows * ceil_div(tokens, std::max<index_t>(plan.tokens, 1));
    index_t const workers = std::min(executor.workers(), pieces);
    std::uint8_t* const of_all = of_worker > 0 ? memory.take<std::uint8_t>(workers * of_worker) : nullptr;

    auto const run = [&](auto& state, matrix_product const& p, index_t first, index_t token, std::uint8_t* mine) {
        index_t const last = std::min(first + plan.rows, p.w.shape.rows);
        index_t const n = std::min(plan.tokens, tokens - token);
        bool const apart = p.after.plus != nullptr && p.after.plus == p.y;
        float* const y = apart ? reinterpret_cast<float*>(mine) : p.y + (begin + token) * p.y_stride + first;
        index_t const y_stride = apart ? last - first : p.y_stride;
        with_readable_rows(p.w, first, last, mine + bytes_of_sums, [&](packed_view const& w, index_t offset) {
            index_t const from = std::max(first - offset, index_t{0});
            index_t const to = std::min(last - offset, w.shape.rows);
            f(state, row_piece{w, from, to, token, n, y + (offset - first), y_stride});
        });
        for (index_t t = 0; t < (p.after.empty() ? 0 : n); ++t) {
            index_t const at = begin + token + t;
            finish(p.after, at, first, last, y + t * y_stride - first, p.y + at * p.y_stride);
        }
    };
    std::atomic<index_t> next = 0;
    executor.for_each(workers, [&](index_t worker) {
        std::uint8_t* const mine = of_all + worker * of_worker;
        auto state = make(mine);
        for (index_t piece = next++; piece < pieces; piece = next++) {
            index_t row_of_pieces = piece % all_rows;
            std::size_t i = 0;
            auto const end_of_unit = [&](std::size_t from) {
                do {
                    ++from;
                } while (from < products.size() && !leads(from));
                return from;
            };
            for (index_t n = 0; row_of_pieces >= (n = ceil_div(products[i].w.shape.rows, plan.rows));) {
                row_of_pieces -= n;
                i = end_of_unit(i);
            }
            for (std::size_t const end = end_of_unit(i); i < end; ++i) {
                run(state, products[i], row_of_pieces * plan.rows, piece / all_rows * plan.tokens,
                    mine + up(plan.bytes));
            }
        }
    });
}

/// Whether inputs in the order and format for one matrix are those for the other.
inline bool share_inputs(packed_view const& a, packed_view const& b) noexcept {
    return a.bits == b.bits && a.shape.cols == b.shape.cols &&
           (a.tile.cols == b.tile.cols || std::min(a.tile.cols, b.tile.cols) >= a.shape.cols) &&
           (a.zeros != nullptr) == (b.zeros != nullptr) &&
           std::memcmp(a.table, b.table, sizeof(float) << a.bits) == 0; // NaN are alike, too
}

} // namespace detent::inline DETENT_ABI::kernel

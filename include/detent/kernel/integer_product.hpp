// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <span>

#include "detent/core/contract.hpp"
#include "detent/core/executor.hpp"
#include "detent/kernel/byte_numbers.hpp"
#include "detent/kernel/floats.hpp"
#include "detent/kernel/integer_form.hpp"
#include "detent/kernel/known.hpp"
#include "detent/kernel/row_pieces.hpp"
#include "detent/kernel/stored_integers.hpp"
#include "detent/kernel/weak_columns.hpp"
#include "detent/matrix/packed_view.hpp"
#include "detent/matrix/quantized_activations.hpp"
#include "detent/simd/integer_dot.hpp"

// y = x W^T for activations and weights that are both codes of small integers times powers of two. The columns are cut
// into spans: tiles, or pieces of wide ones. The integers of a span are multiplied and summed in int32, those of a tile
// are summed exactly, converted to float once and multiplied by the tile's scale; where groups of activations have
// scales of their own, tiles end with these too. So y does not depend on how integers are stored and summed, or on how
// many tokens there are.

namespace detent::inline DETENT_ABI::kernel {

/// Rows of W whose sums are kept together: two registers.
inline constexpr index_t sum_rows = 2 * simd::lanes;

/// sums[t][r] = <panel row r, x[t]> for `Tokens` tokens, a panel (word, sum_rows) and `words` words of each. Unrolled,
/// as only sums that constants index stay in registers.
template <simd::SmallInteger T, int Tokens>
void multiply_panel(std::int32_t const* panel, index_t words, T const* x, index_t x_stride,
                    std::int32_t* sums) noexcept {
    simd::ints low[array_size(Tokens)];
    simd::ints high[array_size(Tokens)];
#pragma GCC unroll 16
    for (int t = 0; t < Tokens; ++t) {
        low[t] = high[t] = simd::ints(0);
    }
    for (index_t k = 0; k < words; ++k) {
        simd::ints const w_low = simd::ints::load_aligned(panel + k * sum_rows);
        simd::ints const w_high = simd::ints::load_aligned(panel + k * sum_rows + simd::lanes);
#pragma GCC unroll 16
        for (int t = 0; t < Tokens; ++t) {
            simd::ints const a(simd::load_word(x + t * x_stride + k * simd::per_word<T>));
            simd::add_products_to<T>(low[t], w_low, a);
            simd::add_products_to<T>(high[t], w_high, a);
        }
    }
#pragma GCC unroll 16
    for (int t = 0; t < Tokens; ++t) {
        low[t].store_aligned(sums + t * sum_rows);
        high[t].store_aligned(sums + t * sum_rows + simd::lanes);
    }
}

/// The exact sums of `sum_rows` rows of W, tile by tile.
template <simd::SmallInteger T> class integer_rows {
public:
    /// What tokens there are, in pieces of at most `most_tokens`; `memory` is aligned and has `bytes` of them.
    template <class Known = any_weights>
    integer_rows(integer_form const& form, packed_view const& w, stored_activations<T> const& x, index_t most_tokens,
                 std::uint8_t* memory, Known known = {})
        : form_(form), w_(w), x_(x), weights_(form, w, known), tile_sums_(reinterpret_cast<double*>(memory)),
          row_sums_(reinterpret_cast<std::int32_t*>(tile_sums_ + most_tokens * sum_rows)) {
        std::fill_n(bases_, sum_rows, form.weight_base);
    }

    static index_t bytes(stored_activations<T> const& x, index_t most_tokens) {
        index_t const sums = (std::min(most_tokens, many - 1) + 1) * std::ssize(x.spans) * sum_rows;
        return most_tokens * sum_rows * static_cast<index_t>(sizeof(double)) +
               sums * static_cast<index_t>(sizeof(std::int32_t));
    }

    /// The next rows are those of this view, which differs in its rows only.
    void read(packed_view const& w) {
        w_ = w;
        weights_.read(w);
    }

    /// Calls `on_tile(token - begin, tokens, span, scales, sums_of)` for tokens [begin, end), a few at a time, and all
    /// tiles of each, in order: `span` is the last of the tile, and `sums_of(i)` gives the exact sums of the i-th of
    /// these tokens, two registers of int32 or an array of double. There are `sum_rows` scales and sums, for the
    /// `count` rows from `row` on; what follows is of no meaning.
    template <class OnTile> void sum(index_t row, index_t count, index_t begin, index_t end, OnTile const& on_tile) {
        row_ = row;
        rows_ = count;
        for (index_t r = 0; r < sum_rows; ++r) {
            tiles_[r] = (row + std::min(r, count - 1)) / w_.tile.rows * w_.tiles_per_row;
        }
        if (end - begin >= many) {
            sum_by_panels(begin, end, on_tile);
        } else {
            sum_by_rows(begin, end, on_tile);
        }
    }

    /// From so many tokens on, a panel pays.
    static constexpr index_t many = 3;

private:
    static constexpr int rows_at_once = 4;
    static constexpr index_t panel_depth = panel_words * simd::per_word<T>;
    using decoded_rows = T[rows_at_once][panel_depth + simd::lanes * simd::per_word<T>]; // a register more may be read
    static constexpr int token_block = simd::lanes >= 16 ? 8 : 4;

    bool with_bases() const { return !x_.bases.empty(); }

    /// The dot product of each row and token, span after span.
    template <class OnTile> void sum_by_rows(index_t begin, index_t end, OnTile const& on_tile) {
        auto const spans = std::ssize(x_.spans);
        index_t const tokens = end - begin;
        alignas(64) decoded_rows decoded = {};
        for (index_t r = 0; r < rows_; r += rows_at_once) {
            for (index_t first = 0; first < spans;) {
                index_t const last = end_of_panel(first);
                decode(r, first, last, decoded);
                for (index_t s = first; s < last; ++s) {
                    column_span const& span = x_.spans[static_cast<std::size_t>(s)];
                    index_t const place = span.place - x_.spans[static_cast<std::size_t>(first)].place;
                    for (index_t t = 0; t < tokens + (with_bases() ? 1 : 0); ++t) {
                        T const* const x = x_.token(t < tokens ? begin + t : std::ssize(x_.factors)) + span.place;
                        simd::dot_four_rows<T>(decoded[0] + place, std::ssize(decoded[0]), x, span.count,
                                               row_sums_ + (t * spans + s) * sum_rows + r);
                    }
                }
                first = last;
            }
        }
        for (index_t s = 0; s < spans; ++s) {
            auto const at = [&](index_t t) { return row_sums_ + (t * spans + s) * sum_rows; };
            enter(s, at(tokens));
            finish(s, begin, 0, tokens, at(0), spans * sum_rows, on_tile);
        }
    }

    /// Decodes panels of W^T that all tokens meet.
    template <class OnTile> void sum_by_panels(index_t begin, index_t end, OnTile const& on_tile) noexcept {
        alignas(64) std::int32_t panel[panel_words * sum_rows];
        alignas(64) std::int32_t sums[token_block * sum_rows];
        auto const spans = std::ssize(x_.spans);
        for (index_t first = 0; first < spans;) {
            index_t const last = end_of_panel(first);
            auto const span = [&](index_t s) -> column_span const& { return x_.spans[static_cast<std::size_t>(s)]; };
            auto const words = [](index_t integers) { return ceil_div(integers, simd::per_word<T>); };
            auto const words_before = [&](index_t s) { return words(span(s).place - span(first).place); };
            auto const words_of = [&](index_t s) { return words(span(s).count); };
            fill(first, last, panel);
            for (index_t s = first; s < last; ++s) {
                std::int32_t const* const part = panel + words_before(s) * sum_rows;
                if (with_bases()) {
                    multiply_panel<T, 1>(part, words_of(s), x_.token(std::ssize(x_.factors)) + span(s).place, 0, sums);
                }
                enter(s, sums);
                auto const multiply = [&]<int Tokens>(index_t t) {
                    multiply_panel<T, Tokens>(part, words_of(s), x_.token(t) + span(s).place, x_.stride, sums);
                    finish(s, begin, t - begin, Tokens, sums, sum_rows, on_tile);
                };
                index_t t = begin;
                for (; t + token_block <= end; t += token_block) {
                    multiply.template operator()<token_block>(t);
                }
                for (; t + 2 <= end; t += 2) {
                    multiply.template operator()<2>(t);
                }
                if (t < end) {
                    multiply.template operator()<1>(t);
                }
            }
            first = last;
        }
    }

    /// After how many spans from `first` on a panel is full.
    index_t end_of_panel(index_t first) const {
        index_t const end = x_.spans[static_cast<std::size_t>(first)].place + panel_depth;
        index_t last = first;
        while (last < std::ssize(x_.spans) &&
               x_.spans[static_cast<std::size_t>(last)].place + x_.spans[static_cast<std::size_t>(last)].count <= end) {
            ++last;
        }
        return last;
    }

    /// The integers of four rows from the `r`-th on and of the spans [first, last); after the last row, it again.
    void decode(index_t r, index_t first, index_t last, decoded_rows& decoded) const noexcept {
        column_span const& front = x_.spans[static_cast<std::size_t>(first)];
        column_span const& back = x_.spans[static_cast<std::size_t>(last - 1)];
        for (int i = 0; i < rows_at_once; ++i) {
            index_t const row = row_ + std::min(r + i, rows_ - 1);
            weights_.decode(row, &front, last - first, decoded[i]);
            // The hardware does not expect rows that take turns.
            index_t const next = std::min(row + 2 * rows_at_once, w_.shape.rows - 1);
            for (index_t k = front.begin; k < back.begin + back.count; k += 512 / w_.bits) {
                __builtin_prefetch(w_.codes + next * w_.row_bytes + k * w_.bits / 8);
            }
        }
    }

    /// Fills a panel (word, sum_rows) with spans [first, last).
    void fill(index_t first, index_t last, std::int32_t* panel) const noexcept {
        alignas(64) decoded_rows decoded;
        column_span const& end = x_.spans[static_cast<std::size_t>(last - 1)];
        index_t const words =
            ceil_div(end.place + end.count - x_.spans[static_cast<std::size_t>(first)].place, simd::per_word<T>);
        for (index_t r = 0; r < sum_rows; r += rows_at_once) {
            decode(r, first, last, decoded);
            simd::interleave_four_rows(reinterpret_cast<std::int32_t const*>(decoded[0]),
                                       std::ssize(decoded[0]) / simd::per_word<T>, words, panel + r, sum_rows);
        }
    }

    /// Prepares for the sums of a span; `ones` are those of stored weights, if activations have bases.
    void enter(index_t s, std::int32_t const* ones) noexcept {
        column_span const& span = x_.spans[static_cast<std::size_t>(s)];
        for (index_t r = 0; r < sum_rows; ++r) {
            scales_[r] = w_.scales[tiles_[r] + span.tile];
        }
        for (index_t r = 0; r < (w_.zeros != nullptr ? sum_rows : 0); ++r) {
            float const zero = w_.zeros[tiles_[r] + span.tile];
            DETENT_EXPECTS(zero >= 0 && zero <= 255 && zero == std::nearbyint(zero));
            bases_[r] = form_.weight_base - static_cast<std::int32_t>(zero) * (1 << form_.weights.exponent);
        }
        for (index_t r = 0; r < (with_bases() ? sum_rows : 0); ++r) { // modulo 2^32
            weight_sums_[r] = static_cast<std::int32_t>(static_cast<std::uint32_t>(ones[r]) +
                                                        static_cast<std::uint32_t>(span.count * bases_[r]));
        }
    }

    /// Makes of a span's sums of stored integers those of the integers meant, for `count` tokens from `begin + t` on,
    /// `stride` sums apart; modulo 2^32, but the result is an int32.
    template <class OnTile>
    void finish(index_t s, index_t begin, index_t t, index_t count, std::int32_t const* stored, index_t stride,
                OnTile const& on_tile) noexcept {
        column_span const& span = x_.spans[static_cast<std::size_t>(s)];
        auto const load = [](std::int32_t const* from) {
            return std::array{simd::ints::load_unaligned(from), simd::ints::load_unaligned(from + simd::lanes)};
        };
        auto const add_product = [](std::array<simd::ints, 2>& sums, std::array<simd::ints, 2> const& a, simd::ints b) {
            sums[0] += a[0] * b;
            sums[1] += a[1] * b;
        };
        // Copies, as what is written between the tokens might else be these.
        index_t const spans = std::ssize(x_.spans);
        std::int32_t const* const x_sums = x_.sums.data() + (begin + t) * spans + s;
        std::int32_t const* const x_bases = with_bases() ? x_.bases.data() + (begin + t) * spans + s : nullptr;
        auto const bases = load(bases_);
        auto const sums_of = [ =, this ](index_t i) __attribute__((always_inline)) {
            auto sums = load(stored + i * stride);
            add_product(sums, bases, simd::ints(x_sums[i * spans]));
            if (x_bases != nullptr) {
                add_product(sums, load(weight_sums_), simd::ints(x_bases[i * spans]));
            }
            return sums;
        };
        if (span.first && span.last) {
            on_tile(t, count, s, scales_, sums_of);
            return;
        }
        double* const totals = tile_sums_ + t * sum_rows;
        for (index_t i = 0; i < count; ++i) {
            auto const sums = sums_of(i);
            alignas(64) std::int32_t part[sum_rows];
            sums[0].store_aligned(part);
            sums[1].store_aligned(part + simd::lanes);
            double* const total = totals + i * sum_rows;
            for (index_t r = 0; r < sum_rows; ++r) {
                total[r] = (span.first ? 0.0 : total[r]) + part[r];
            }
        }
        if (span.last) {
            on_tile(t, count, s, scales_, [&](index_t i) { return totals + i * sum_rows; });
        }
    }

    integer_form const& form_;
    packed_view w_;
    stored_activations<T> const& x_;
    stored_weights<T> weights_;
    double* tile_sums_;      // (token, row), of tiles of several spans
    std::int32_t* row_sums_; // (token, span, row), of few tokens and one of ones
    index_t row_ = 0;
    index_t rows_ = 0;
    index_t tiles_[sum_rows]; // where the tiles of each row begin
    alignas(64) float scales_[sum_rows];
    alignas(64) std::int32_t bases_[sum_rows];
    alignas(64) std::int32_t weight_sums_[sum_rows];
};

/// a b + c, rounded once where there is an instruction for it. xsimd 8 has none for AVX-512 and leaves it to the
/// compiler, which may choose differently at each place.
inline floats multiply_add(floats a, floats b, floats c) noexcept {
#if defined(__AVX512F__)
    return floats(_mm512_fmadd_ps(a, b, c));
#else
    return xsimd::fma(a, b, c);
#endif
}

/// Exact sums, each rounded to float once.
inline std::array<floats, 2> rounded(std::array<simd::ints, 2> const& sums) noexcept {
    return {xsimd::to_float(sums[0]), xsimd::to_float(sums[1])};
}

/// Exact sums in double, each rounded to float once.
inline std::array<floats, 2> rounded(double const* sums) noexcept {
    alignas(64) float numbers[sum_rows];
    std::copy(sums, sums + sum_rows, numbers);
    return {floats::load_aligned(numbers), floats::load_aligned(numbers + lanes)};
}

/// Products with `tokens` stored inputs, whose matrices share inputs and are in this form; weak columns meet those of
/// `weak_inputs` (token, column), rows `weak_stride` floats apart, at `weak_places`, or where that is null at their
/// columns.
template <class Known = any_weights, simd::SmallInteger T>
void multiply(integer_form const& form, std::span<matrix_product const> products, stored_activations<T> const& x,
              index_t tokens, float const* weak_inputs, index_t weak_stride, std::int32_t const* weak_places,
              scratch& memory, executor_ref executor) {
    index_t const rows_per_task = 64;
    index_t const tokens_per_task = std::min<index_t>(256, tokens);
    struct worker {
        integer_rows<T> rows;
        float* totals; // (token, sum_rows)
    };
    auto const all_totals = tokens_per_task * sum_rows * static_cast<index_t>(sizeof(float));
    auto const make = [&](std::uint8_t* mine) {
        return worker{integer_rows<T>(form, products.front().w, x, tokens_per_task, mine + all_totals, Known{}),
                      reinterpret_cast<float*>(mine)};
    };
    piece_plan const plan{rows_per_task, tokens_per_task, all_totals + integer_rows<T>::bytes(x, tokens_per_task)};
    for_row_pieces(products, 0, tokens, plan, memory, executor, make, [&](worker& mine, row_piece const& p) {
        float* const totals = mine.totals;
        mine.rows.read(p.w);
        for (index_t row = p.first; row < p.last; row += sum_rows) {
            index_t const count = std::min(sum_rows, p.last - row);
            std::fill_n(totals, p.tokens * sum_rows, 0.0F);
            // totals[r] += sums[r] x_scale scales[r]
            auto const add = [&](index_t first_token, index_t n, index_t span, float const* row_scales,
                                 auto const& sums_of) __attribute__((always_inline)) {
                index_t const spans = std::ssize(x.spans);
                float const* const x_scales =
                    x.scales.empty() ? nullptr : x.scales.data() + (p.token + first_token) * spans + span;
                floats const scales[] = {floats::load_aligned(row_scales), floats::load_aligned(row_scales + lanes)};
                float* to = totals + first_token * sum_rows;
                for (index_t i = 0; i < n; ++i, to += sum_rows) {
                    auto const sums = rounded(sums_of(i));
                    floats const x_scale(x_scales != nullptr ? x_scales[i * spans] : 1.0F);
                    for (int half = 0; half < 2; ++half) {
                        float* const at = to + half * lanes;
                        auto const total = floats::load_unaligned(at);
                        multiply_add(sums.data()[half] * x_scale, scales[half], total).store_unaligned(at);
                    }
                }
            };
            mine.rows.sum(row, count, p.token, p.token + p.tokens, add);
            for (index_t t = 0; t < p.tokens; ++t) {
                float const factor = x.factors[static_cast<std::size_t>(p.token + t)];
                for (index_t r = 0; r < count; ++r) {
                    p.y[t * p.y_stride + row + r] = totals[t * sum_rows + r] * factor;
                }
            }
        }
        weak_view weak = p.w.weak;
        weak.columns = weak_places != nullptr ? weak_places : weak.columns;
        for (index_t t = 0; t < p.tokens && weak.count > 0; ++t) {
            add_weak(weak, p.first, p.last, weak_inputs + (p.token + t) * weak_stride, p.y + t * p.y_stride);
        }
    });
}

/// Products with x (token, in) of codes in the form that `integer_form_of<T>` has found, in the stored order of
/// columns. Matrices share inputs, and one with weak columns is alone. The same bits for any executor.
template <simd::SmallInteger T, class Known = any_weights>
void multiply(integer_form const& form, std::span<matrix_product const> products, activation_view const& x,
              executor_ref executor = {}) {
    scratch memory(executor);
    packed_view const& w = products.front().w;
    weak_view const& weak = w.weak;
    stored_activations<T> const stored(memory, form, w, x, executor);
    // Weak columns meet the numbers of activations.
    auto* const places = memory.take<std::int32_t>(weak.count);
    auto* const weak_inputs = memory.take<float>(x.shape.rows * weak.count); // (token, weak column)
    for (index_t k = 0; k < weak.count; ++k) {
        places[k] = static_cast<std::int32_t>(k);
        for (index_t t = 0; t < x.shape.rows; ++t) {
            weak_inputs[t * weak.count + k] = x.at(t, weak.columns[k]);
        }
    }
    multiply<Known>(form, products, stored, x.shape.rows, weak_inputs, weak.count, places, memory, executor);
}

/// Products with `tokens` inputs (token, in) rounded as `input_format::int8` says, rows `x_stride` floats apart; their
/// matrices share inputs.
template <class Known = any_weights>
void multiply_rounded(byte_numbers const& numbers, std::span<matrix_product const> products, float const* x,
                      index_t x_stride, index_t tokens, executor_ref executor) {
    scratch memory(executor);
    stored_activations<std::int8_t> const stored(memory, numbers, products.front().w, x, x_stride, tokens, executor);
    integer_form const form{.weights = numbers.table, .weight_base = numbers.base};
    multiply<Known>(form, products, stored, tokens, x, x_stride, nullptr, memory, executor);
}

} // namespace detent::inline DETENT_ABI::kernel

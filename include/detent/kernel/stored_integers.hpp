// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <numeric>
#include <span>

#include "detent/core/executor.hpp"
#include "detent/core/index.hpp"
#include "detent/kernel/byte_numbers.hpp"
#include "detent/kernel/input_format.hpp"
#include "detent/kernel/integer_form.hpp"
#include "detent/kernel/known.hpp"
#include "detent/matrix/packed_view.hpp"
#include "detent/matrix/quantized_activations.hpp"
#include "detent/pack/linear.hpp"
#include "detent/simd/byte_lookup.hpp"
#include "detent/simd/integer_dot.hpp"
#include "detent/simd/unpack.hpp"

// The integers of activations and of weights as products of codes with codes read them. The columns are cut into spans:
// tiles, or pieces of wide ones.

namespace detent::inline DETENT_ABI::kernel {

/// Words (of four bytes or two int16) of a row that a panel holds; it fits the first-level cache.
inline constexpr index_t panel_words = 128;

/// Consecutive stored columns of one tile and one group of activations; what both share is called a tile below.
struct column_span {
    index_t begin; ///< the first column
    index_t count;
    index_t place; ///< where its integers are stored, a multiple of a word
    index_t tile;  ///< of weights, in the row of tiles
    bool first;    ///< whether a tile begins with it
    bool last;     ///< whether a tile ends with it
};

/// The integers of activations, in the stored order of columns, each span from a whole word on; in memory of a scratch.
template <simd::SmallInteger T> struct stored_activations {
    std::span<column_span> spans;
    index_t stride = 0;            ///< integers from a token to the next
    T* integers = nullptr;         ///< (token, place); one token of ones follows if there are bases
    std::span<std::int32_t> sums;  ///< (token, span)
    std::span<std::int32_t> bases; ///< (token, span), what is to be added to integers; empty for none
    std::span<float> scales;       ///< (token, span), of inputs with scales for groups; empty for none
    std::span<float> factors;      ///< (token), what sums of integers times weight scales are to be multiplied by

    stored_activations(scratch& memory, integer_form const& form, packed_view const& w, activation_view const& x,
                       executor_ref executor)
        : factors(taken<float>(memory, x.shape.rows)) {
        spans = taken<column_span>(memory, for_spans(form, w, x, [](column_span const&) {}));
        index_t i = 0;
        for_spans(form, w, x, [&](column_span span) {
            span.place = stride;
            stride += ceil_div(span.count, simd::per_word<T>) * simd::per_word<T>;
            spans[static_cast<std::size_t>(i++)] = span;
        });
        index_t const tokens = x.shape.rows;
        take_integers(memory, tokens + (form.zeros_apart ? 1 : 0));
        sums = taken<std::int32_t>(memory, tokens * std::ssize(spans));
        scales = taken<float>(memory, x.groups() > 1 ? std::ssize(sums) : 0);
        if (form.zeros_apart) {
            bases = taken<std::int32_t>(memory, std::ssize(sums));
            std::fill_n(integers + tokens * stride, stride, T{1});
        }
        // (stored column), what integers are multiplied by for their shift
        auto const times = taken<std::int32_t>(memory, x.shifts.empty() ? 0 : x.shape.cols);
        for (std::size_t k = 0; k < times.size(); ++k) {
            times[k] = 1 << (form.shift - x.shifts[k]);
        }
        index_t const pieces = ceil_div(tokens, 8);
        T* const rows = memory.take<T>(pieces * x.shape.cols); // one for each piece
        executor.for_each(pieces, [&](index_t piece) {
            std::span const row(rows + piece * x.shape.cols, static_cast<std::size_t>(x.shape.cols));
            for (index_t t = piece * 8; t < std::min(tokens, (piece + 1) * 8); ++t) {
                store(form, x, t, times, row);
            }
        });
    }

    /// Inputs (token, in) rounded as `input_format::int8` says; columns that share a scale are a span.
    stored_activations(scratch& memory, byte_numbers const& numbers, packed_view const& w, float const* x,
                       index_t x_stride, index_t tokens, executor_ref executor) requires std::same_as<T, std::int8_t>
        : factors(taken<float>(memory, tokens)) {
        std::fill(factors.begin(), factors.end(), numbers.unit);
        index_t groups = 0;
        for_input_groups(w, [&](index_t, index_t) { ++groups; });
        spans = taken<column_span>(memory, groups);
        std::size_t s = 0;
        for_input_groups(w, [&](index_t begin, index_t end) {
            spans[s++] = {begin, end - begin, stride, begin / w.tile.cols, true, true};
            stride += ceil_div(end - begin, simd::per_word<T>) * simd::per_word<T>;
        });
        take_integers(memory, tokens);
        sums = taken<std::int32_t>(memory, tokens * std::ssize(spans));
        scales = taken<float>(memory, std::ssize(sums));
        executor.for_pieces(tokens, 8, [&](index_t first, index_t last) {
            for (index_t t = first; t < last; ++t) {
                auto i = static_cast<std::size_t>(t * std::ssize(spans));
                for (column_span const& span : spans) {
                    T* const to = integers + t * stride + span.place;
                    scales[i] = round_to_bytes(x + t * x_stride + span.begin, span.count, to);
                    sums[i++] = std::accumulate(to, to + span.count, std::int32_t{0});
                }
            }
        });
    }

    T const* token(index_t t) const { return integers + t * stride; }

private:
    template <class U> static std::span<U> taken(scratch& memory, index_t n) {
        return {memory.take<U>(n), static_cast<std::size_t>(n)};
    }

    /// Zeros, as products may read those after a token's last.
    void take_integers(scratch& memory, index_t tokens) {
        index_t const more = 64 / static_cast<index_t>(sizeof(T));
        integers = memory.take<T>(tokens * stride + more);
        std::fill_n(integers, tokens * stride + more, T{0});
    }

    /// Calls `f(span)` for each span but for its place, and answers how many there are.
    template <class F>
    static index_t for_spans(integer_form const& form, packed_view const& w, activation_view const& x, F const& f) {
        index_t const longest = std::min(panel_words * simd::per_word<T>, form.longest_run);
        index_t spans = 0;
        for (index_t begin = 0; begin < x.shape.cols; ++spans) {
            index_t const tile = begin / w.tile.cols;
            index_t const group = x.width == 0 ? 0 : begin / x.width;
            index_t const end_of_group = x.width == 0 ? x.shape.cols : (group + 1) * x.width;
            index_t const end = std::min({(tile + 1) * w.tile.cols, end_of_group, x.shape.cols});
            index_t const count = std::min(longest, end - begin);
            bool const first = begin == std::max(tile * w.tile.cols, group * x.width);
            f(column_span{begin, count, 0, tile, first, begin + count == end});
            begin += count;
        }
        return spans;
    }

    void store(integer_form const& form, activation_view const& x, index_t t, std::span<std::int32_t const> times,
               std::span<T> row) {
        // Both differences are taken modulo 2^8 or 2^16; what they leave is a T.
        code const* const codes = x.codes.data() + t * x.shape.cols;
        std::int32_t const base = form.zeros_apart ? form.activation_base : 0;
        auto const integer = [&](code c) { return static_cast<T>(form.activations.integers[c] - base); };
        if constexpr (sizeof(T) == 1) {
            simd::byte_table const table(x.bits, [&](code c) { return static_cast<std::uint8_t>(integer(c)); });
            simd::lookup<8>(table, codes, std::ssize(row), reinterpret_cast<std::uint8_t*>(row.data()));
        } else {
            std::transform(codes, codes + row.size(), row.begin(), integer);
        }
        auto i = static_cast<std::size_t>(t * std::ssize(spans));
        for (column_span const& span : spans) {
            tile_scale const s = x.scale_of(t, span.begin);
            auto const zero = static_cast<std::int32_t>(std::ldexp(s.zero, form.activations.exponent));
            T* const of_span = row.data() + span.begin;
            if (zero != 0 && !form.zeros_apart) {
                std::transform(of_span, of_span + span.count, of_span, [&](T n) { return static_cast<T>(n - zero); });
            }
            for (index_t k = 0; k < (times.empty() ? 0 : span.count); ++k) {
                of_span[k] = static_cast<T>(of_span[k] * times[static_cast<std::size_t>(span.begin + k)]);
            }
            std::copy(of_span, of_span + span.count, integers + t * stride + span.place);
            sums[i] = std::accumulate(of_span, of_span + span.count, std::int32_t{0});
            if (form.zeros_apart) {
                bases[i] = form.activation_base - zero;
            }
            if (!scales.empty()) {
                scales[i] = s.scale;
            }
            ++i;
        }
        factors[static_cast<std::size_t>(t)] =
            std::ldexp(scales.empty() ? x.scale_of_group(t, 0).scale : 1.0F,
                       -(form.weights.exponent + form.activations.exponent + form.shift));
    }
};

/// The integers of weights.
template <simd::SmallInteger T> class stored_weights {
public:
    template <class Known = any_weights>
    stored_weights(integer_form const& form, packed_view const& w, Known = {})
        : w_(w), lowest_(form.weights.lowest), by_bytes_(form.weights.highest - form.weights.lowest <= 255),
          bytes_(w.bits, [&](code c) {
              std::int32_t const base = sizeof(T) == 1 ? form.weight_base : form.weights.lowest;
              return static_cast<std::uint8_t>(form.weights.integers[c] - base);
          }) {
        for (std::size_t c = 0; c < 256; ++c) {
            integers_[c] = static_cast<T>(form.weights.integers[c] - form.weight_base);
        }
        with_bits_of<Known>(w, [&]<int Bits> { decode_columns_ = decode_columns<Bits>; });
    }

    /// The next weights are those of this view, which differs in its rows only.
    void read(packed_view const& w) { w_ = w; }

    /// Writes the integers at `row` of spans of at most `panel_words` words together to their places from that of the
    /// first on, and zeros between and after, to fill words.
    void decode(index_t row, column_span const* spans, index_t count, T* out) const noexcept {
        T* const start = out;
        auto const place = [&](index_t s) { return start + spans[s].place - spans[0].place; };
        for (index_t s = 0; s < count;) {
            index_t const begin = spans[s].begin;
            index_t n = spans[s].count;
            out = place(s);
            for (++s; s < count && place(s) == out + n; ++s) {
                n += spans[s].count;
            }
            decode_columns_(*this, row, begin, n, out);
            out += n;
            std::fill(out, start + ceil_div(out - start, simd::per_word<T>) * simd::per_word<T>, T{0});
        }
    }

private:
    /// A function for each number of bits, chosen once: then the loops around it are compiled once.
    template <int Bits>
    static void decode_columns(stored_weights const& self, index_t row, index_t begin, index_t n, T* out) noexcept {
        std::uint8_t const* const stream = self.w_.codes + row * self.w_.row_bytes;
        if constexpr (sizeof(T) == 1) {
            simd::decode<Bits>(self.bytes_, stream, begin, n, reinterpret_cast<std::uint8_t*>(out));
        } else if (simd::bytes_at_once<Bits> > 1 && self.by_bytes_) {
            alignas(64) std::uint8_t bytes[array_size(longest)];
            simd::decode<Bits>(self.bytes_, stream, begin, n, bytes);
            for (index_t i = 0; i < n; ++i) {
                out[i] = static_cast<T>(bytes[i] + self.lowest_);
            }
        } else {
            code codes[array_size(longest + 8)];
            index_t const skipped = begin % 8;
            simd::unpack<Bits>(stream + begin / 8 * Bits, n + skipped, codes);
            for (index_t i = 0; i < n; ++i) {
                out[i] = self.integers_[codes[skipped + i]];
            }
        }
    }

    static constexpr index_t longest = panel_words * simd::per_word<T>;

    packed_view w_;
    std::int32_t lowest_;
    bool by_bytes_; // whether bytes tell weights apart
    simd::byte_table bytes_;
    T integers_[256];
    void (*decode_columns_)(stored_weights const&, index_t, index_t, index_t, T*) noexcept = nullptr;
};

} // namespace detent::inline DETENT_ABI::kernel

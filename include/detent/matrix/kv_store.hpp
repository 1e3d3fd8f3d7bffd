// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <utility>

#include "detent/core/buffer.hpp"
#include "detent/core/contract.hpp"
#include "detent/core/eigen.hpp"
#include "detent/core/error.hpp"
#include "detent/core/executor.hpp"
#include "detent/core/finite.hpp"
#include "detent/core/half.hpp"
#include "detent/matrix/activation_quantizer.hpp"
#include "detent/matrix/kv_view.hpp"
#include "detent/matrix/packed_view.hpp"
#include "detent/scale/any_grid.hpp"
#include "detent/scale/any_range.hpp"
#include "detent/simd/nearest.hpp"

namespace detent::inline DETENT_ABI {

/// How keys and values are stored: as floats or halves, or as codes of any grid with a half-precision scale, and a
/// zero point where the grid has one, for each token and head or for groups of channels within a head.
struct kv_format {
    float_format floats = float_format::f32; ///< where there is no grid
    std::optional<any_grid> grid = {};
    index_t group = 0;    ///< consecutive channels of a head that share a scale, 0 for all; the last may be fewer
    any_range range = {}; ///< fits scales; empty for the smallest and the largest number

    /// Whether codes are of keys less a mean: that of the 32 tokens before, for each block of 32 tokens, nothing for
    /// the first. Channels of keys lie around values of their own, which would take most of a coarse grid; values do
    /// not. Numbers that are no codes are stored as they are.
    bool centered = false;

    /// Codes of `codes`, for which any grid of at most 8 bits will do.
    static kv_format of(any_grid codes, index_t channels = 0) { return {.grid = std::move(codes), .group = channels}; }
};

/// The keys or the values of one attention layer: a row for every token and head, the rows of a head one after the
/// other, so that attention reads a head as one stream. Grows as tokens come, or holds the last ones only, in a ring.
/// What a token becomes depends on those before it only, and not on how many come at a time. Const uses may happen at
/// once in several threads.
class kv_store {
public:
    /// `what` names the numbers in errors. A `window` other than 0 says that only the last `window` tokens will be
    /// read; `reserved` tokens have room from the start. @throws error when `format` does not fit heads of `head_dim`.
    kv_store(std::string what, kv_format format, index_t heads, index_t head_dim, index_t window = 0,
             index_t reserved = 0);

    index_t heads() const { return heads_; }
    index_t head_dim() const { return layout_.head_dim; }
    index_t window() const { return window_; }
    kv_format const& format() const { return format_; }
    /// Tokens seen, those that were dropped included.
    index_t size() const { return size_; }
    /// The first token that is still there.
    index_t first() const { return first_; }

    // Templates so that only programs that store something compile them.

    /// Throws what `append` would.
    template <class Scalar = float> void check(matrix_view numbers) const;

    /// Adds the next tokens, (token, heads * head_dim). @throws error when the shape is another or a number is not
    /// finite or too large for a half; the store is then as it was.
    template <class Scalar = float> void append(matrix_view numbers, executor_ref executor = {});

    /// Forgets all but the first `size` tokens. @throws error when tokens of the window before are no longer there.
    void truncate(index_t size) {
        if (size == 0) {
            first_ = 0; // no token is needed
        }
        if (size < size_ && first_ > std::max<index_t>(0, window_ == 0 ? 0 : size - window_ + 1)) {
            raise(error(what_,
                        "cannot go back to " + std::to_string(size) + " tokens, of which the window has moved on"));
        }
        size_ = std::min(size_, size);
    }

    /// What is stored for tokens [first, size) as floats, (token, heads * head_dim).
    template <class Scalar = float> basic_matrix<Scalar> decode() const;

    /// Valid until the next change.
    kv_view view() const;

    /// Bits that a number takes with its share of scales, zero points and padding.
    double bits_per_number() const {
        double const centers = static_cast<double>(center_bytes()) / static_cast<double>(kv_view::centered_tokens);
        return 8 * (static_cast<double>(token_bytes()) + centers) / static_cast<double>(layout_.head_dim);
    }
    /// Bytes of the memory for tokens, those to come included.
    index_t bytes() const { return heads_ * (layout_.slots * token_bytes() + layout_.center_slots * center_bytes()); }

private:
    static kv_numbers numbers_of(kv_format const& format) {
        if (format.grid) {
            return format.grid->bits() <= 4 ? kv_numbers::nibbles : kv_numbers::bytes;
        }
        return format.floats == float_format::f32   ? kv_numbers::f32
               : format.floats == float_format::f16 ? kv_numbers::f16
                                                    : kv_numbers::bf16;
    }

    /// Bytes of one token of one head.
    index_t token_bytes() const {
        index_t const scale_bytes = layout_.groups * static_cast<index_t>(sizeof(half));
        return layout_.row_bytes + (has_scales() ? scale_bytes : 0) + (has_zeros() ? scale_bytes : 0);
    }
    /// Bytes of the centers of one block of tokens of one head.
    index_t center_bytes() const {
        return has_centers() ? layout_.groups * layout_.padded_width * static_cast<index_t>(sizeof(bfloat16)) : 0;
    }
    bool has_centers() const { return has_scales() && format_.centered; }
    bool has_scales() const { return format_.grid.has_value(); }
    bool has_zeros() const { return has_scales() && format_.grid->has_zero(); }

    half* scales() { return reinterpret_cast<half*>(scales_.data()); }
    half* zeros() { return reinterpret_cast<half*>(zeros_.data()); }

    /// Bytes of `n` numbers, a multiple of a step.
    index_t bytes_of(index_t n) const {
        switch (layout_.numbers) {
        case kv_numbers::f32:
            return 4 * n;
        case kv_numbers::f16:
        case kv_numbers::bf16:
            return 2 * n;
        case kv_numbers::bytes:
            return n;
        case kv_numbers::nibbles:
            break;
        }
        return n / 2;
    }

    /// Makes room for `tokens` more.
    template <class Scalar> void make_room(index_t tokens);
    /// Tokens of a block of centers that are there when the next begins.
    index_t tokens_to_center() const {
        return window_ == 0 ? kv_view::centered_tokens : std::min(kv_view::centered_tokens, window_ - 1);
    }
    /// Takes the centers of the block that begins now.
    template <class Scalar> void center();
    /// Rounds `x`, head_dim numbers, and writes the codes to the slot of token `t`.
    template <class Scalar> void put(index_t head, index_t t, float const* x);
    /// Writes a row of floats to a slot of a head.
    void put_floats(index_t place, float const* x);
    /// Writes the codes of a group of a row.
    void put_codes(index_t place, index_t group, code const* codes, tile_scale scale);
    /// Reads the numbers of a token.
    void get(index_t head, index_t t, float* x) const;

    std::string what_;
    kv_format format_;
    index_t heads_;
    index_t window_;
    index_t size_ = 0;
    index_t first_ = 0;
    kv_view layout_; // without addresses
    buffer rows_;
    buffer scales_;
    buffer zeros_;
    buffer centers_;
};

inline kv_store::kv_store(std::string what, kv_format format, index_t heads, index_t head_dim, index_t window,
                          index_t reserved)
    : what_(std::move(what)), format_(std::move(format)), heads_(heads), window_(window) {
    if (heads < 1 || head_dim < 1 || window < 0 || reserved < 0 || format_.group < 0) {
        raise(error(what_, "cannot be stored as " + std::to_string(heads) + " heads of " + std::to_string(head_dim) +
                               " channels, in groups of " + std::to_string(format_.group) + ", the last " +
                               std::to_string(window) + " tokens, with room for " + std::to_string(reserved)));
    }
    layout_.numbers = numbers_of(format_);
    layout_.head_dim = head_dim;
    layout_.width = has_scales() && format_.group > 0 ? std::min(format_.group, head_dim) : head_dim;
    layout_.groups = ceil_div(head_dim, layout_.width);
    index_t const step = layout_.numbers == kv_numbers::nibbles ? 2 * simd::lanes : simd::lanes;
    layout_.padded_width = ceil_div(layout_.width, step) * step;
    index_t const padded = layout_.groups * layout_.padded_width;
    layout_.row_bytes = bytes_of(padded);
    if (layout_.groups > kv_limits::groups || padded > kv_limits::padded_row) {
        raise(error(what_, "of heads of " + std::to_string(head_dim) + " channels in groups of " +
                               std::to_string(layout_.width) + " are too large to be attended to"));
    }
    if (has_scales()) {
        layout_.bits = format_.grid->bits();
        layout_.consecutive = is_consecutive(format_.grid->table());
    }
    if (reserved > 0) {
        make_room<float>(window_ > 0 ? std::min(window_, reserved) : reserved);
    }
}

inline kv_view kv_store::view() const {
    kv_view v = layout_;
    v.rows = rows_.data();
    v.scales = has_scales() ? reinterpret_cast<half const*>(scales_.data()) : nullptr;
    v.zeros = has_zeros() ? reinterpret_cast<half const*>(zeros_.data()) : nullptr;
    v.centers = has_centers() ? reinterpret_cast<bfloat16 const*>(centers_.data()) : nullptr;
    v.table = has_scales() ? format_.grid->table().data() : nullptr;
    return v;
}

template <class Scalar> void kv_store::make_room(index_t tokens) {
    index_t const keep = window_ == 0 ? size_ : std::min(size_ - first_, window_ - 1);
    if (keep + tokens <= layout_.slots) {
        return;
    }
    index_t const doubled = window_ == 0 ? 2 * layout_.slots : std::min(2 * layout_.slots, window_);
    index_t const slots = std::max(keep + tokens, doubled);
    // Moves elements [begin, end) of `n` bytes of each head from a ring of `before` to one of `after`.
    auto const move = [&](buffer& parts, index_t n, index_t begin, index_t end, index_t before, index_t after) {
        buffer larger(heads_ * after * n);
        for (index_t head = 0; head < heads_ && n > 0; ++head) {
            for (index_t t = begin; t < end; ++t) {
                std::memcpy(larger.data() + (head * after + t % after) * n,
                            parts.data() + (head * before + t % before) * n, static_cast<std::size_t>(n));
            }
        }
        parts = std::move(larger);
    };
    index_t const scale_bytes = layout_.groups * static_cast<index_t>(sizeof(half));
    first_ = size_ - keep;
    move(rows_, layout_.row_bytes, first_, size_, layout_.slots, slots);
    move(scales_, has_scales() ? scale_bytes : 0, first_, size_, layout_.slots, slots);
    move(zeros_, has_zeros() ? scale_bytes : 0, first_, size_, layout_.slots, slots);
    constexpr index_t block = kv_view::centered_tokens;
    index_t const center_slots = ceil_div(slots, block) + 1; // a ring may begin and end within a block
    move(centers_, center_bytes(), first_ / block, ceil_div(size_, block), layout_.center_slots, center_slots);
    layout_.slots = slots;
    layout_.center_slots = center_slots;
}

template <class Scalar> void kv_store::check(matrix_view numbers) const {
    if (numbers.cols() != heads_ * layout_.head_dim) {
        raise(error(what_, "have " + std::to_string(numbers.cols()) + " features, not " + std::to_string(heads_) +
                               " heads of " + std::to_string(layout_.head_dim)));
    }
    for (index_t t = 0; t < numbers.rows(); ++t) {
        for (index_t i = 0; i < numbers.cols(); ++i) {
            float x = numbers.data()[t * numbers.outerStride() + i];
            bool const finite = is_finite(x);
            x = layout_.numbers == kv_numbers::f16 ? static_cast<float>(half(x)) : x;
            if (!is_finite(x)) {
                raise(error(what_, "that of token " + std::to_string(size_ + t) + " and head " +
                                       std::to_string(i / layout_.head_dim) +
                                       (finite ? " is too large for a half" : " is not finite")));
            }
        }
    }
}

template <class Scalar> void kv_store::center() {
    index_t const n = std::min(size_, tokens_to_center());
    kv_view const v = view();
    auto* const centers = reinterpret_cast<bfloat16*>(centers_.data());
    for (index_t head = 0; head < heads_; ++head) {
        float sums[kv_limits::padded_row] = {};
        float x[kv_limits::padded_row];
        for (index_t t = size_ - n; t < size_; ++t) {
            get(head, t, x);
            for (index_t i = 0; i < v.head_dim; ++i) {
                sums[i] += x[i] / static_cast<float>(n);
            }
        }
        bfloat16* const to = centers + (v.centers_of(head, size_) - v.centers);
        std::fill_n(to, v.groups * v.padded_width, bfloat16(0.0F));
        for (index_t i = 0; i < v.head_dim; ++i) {
            to[i / v.width * v.padded_width + i % v.width] = bfloat16(sums[i]);
        }
    }
}

template <class Scalar> void kv_store::append(matrix_view numbers, executor_ref executor) {
    check<Scalar>(numbers);
    make_room<Scalar>(numbers.rows());
    for (index_t done = 0; done < numbers.rows();) {
        index_t n = numbers.rows() - done;
        if (has_centers()) { // a block is to be there before the next one's centers are taken
            n = std::min(n, kv_view::centered_tokens - size_ % kv_view::centered_tokens);
            if (size_ % kv_view::centered_tokens == 0) {
                center<Scalar>();
            }
        }
        executor.for_pieces(n * heads_, 16, [&](index_t begin, index_t end) {
            for (index_t row = begin; row < end; ++row) {
                index_t const t = row / heads_;
                index_t const head = row % heads_;
                put<Scalar>(head, size_ + t,
                            numbers.data() + (done + t) * numbers.outerStride() + head * layout_.head_dim);
            }
        });
        size_ += n;
        done += n;
    }
    first_ = std::max(first_, size_ - layout_.slots);
}

template <class Scalar> void kv_store::put(index_t head, index_t t, float const* x) {
    index_t const place = head * layout_.slots + t % layout_.slots;
    if (!has_scales()) {
        put_floats(place, x);
        return;
    }
    Scalar group[kv_limits::padded_row];
    Scalar rounded[kv_limits::padded_row];
    code codes[kv_limits::padded_row];
    kv_view const v = view();
    for (index_t g = 0; g < v.groups; ++g) {
        index_t const begin = g * v.width;
        index_t const n = std::min(v.width, v.head_dim - begin);
        for (index_t i = 0; i < n; ++i) {
            group[i] = x[begin + i];
            if (v.centers != nullptr) {
                group[i] -= static_cast<float>(v.centers_of(head, t)[g * v.padded_width + i]);
            }
        }
        tile_scale const scale =
            fit_scale(*format_.grid, format_.range, view_of(group, 1, n, n), scale_format(scale_kind::f16), {0, begin});
        format_.grid->round(n, group, scale, codes, rounded);
        put_codes(place, g, codes, scale);
    }
}

inline void kv_store::put_floats(index_t place, float const* x) {
    std::uint8_t* const to = rows_.data() + place * layout_.row_bytes;
    if (layout_.numbers == kv_numbers::f32) {
        std::memcpy(to, x, static_cast<std::size_t>(layout_.head_dim) * sizeof(float));
        return;
    }
    for (index_t i = 0; i < layout_.head_dim; ++i) {
        std::uint16_t const bits = layout_.numbers == kv_numbers::f16 ? half(x[i]).bits : bfloat16(x[i]).bits;
        std::memcpy(to + 2 * i, &bits, 2);
    }
}

inline void kv_store::put_codes(index_t place, index_t group, code const* codes, tile_scale scale) {
    std::uint8_t* const to = rows_.data() + place * layout_.row_bytes + group * bytes_of(layout_.padded_width);
    index_t const n = std::min(layout_.width, layout_.head_dim - group * layout_.width);
    auto const at = [&](index_t i) { return codes[i < n ? i : 0]; }; // padded with numbers of the grid
    if (layout_.numbers == kv_numbers::bytes) {
        for (index_t i = 0; i < layout_.padded_width; ++i) {
            to[i] = at(i);
        }
    } else { // the lower half of each step's bytes comes first
        for (index_t i = 0; i < layout_.padded_width / 2; ++i) {
            index_t const low = i / simd::lanes * 2 * simd::lanes + i % simd::lanes;
            to[i] = static_cast<std::uint8_t>(at(low) | at(low + simd::lanes) << 4);
        }
    }
    scales()[place * layout_.groups + group] = half(scale.scale);
    if (has_zeros()) {
        zeros()[place * layout_.groups + group] = half(scale.zero);
    }
}

inline void kv_store::get(index_t head, index_t t, float* x) const {
    kv_view const v = view();
    index_t const place = head * v.slots + t % v.slots;
    for (index_t i = 0; i < v.head_dim; ++i) {
        index_t const g = i / v.width;
        index_t const in_group = i % v.width;
        std::uint8_t const* const from = v.rows + place * v.row_bytes + g * bytes_of(v.padded_width);
        std::uint16_t bits = 0;
        switch (v.numbers) {
        case kv_numbers::f32:
            std::memcpy(x + i, from + 4 * in_group, 4);
            continue;
        case kv_numbers::f16:
        case kv_numbers::bf16:
            std::memcpy(&bits, from + 2 * in_group, 2);
            if (v.numbers == kv_numbers::f16) {
                half number;
                number.bits = bits;
                x[i] = static_cast<float>(number);
            } else {
                bfloat16 number;
                number.bits = bits;
                x[i] = static_cast<float>(number);
            }
            continue;
        case kv_numbers::bytes:
            bits = from[in_group];
            break;
        case kv_numbers::nibbles: {
            index_t const in_step = in_group % (2 * simd::lanes);
            std::uint8_t const both = from[(in_group - in_step) / 2 + in_step % simd::lanes];
            bits = in_step < simd::lanes ? both & 15 : both >> 4;
            break;
        }
        }
        auto const scale = static_cast<float>(v.scales[place * v.groups + g]);
        float const zero = v.zeros != nullptr ? static_cast<float>(v.zeros[place * v.groups + g]) : 0.0F;
        x[i] = (v.table[bits] - zero) * scale;
        if (v.centers != nullptr) {
            x[i] += static_cast<float>(v.centers_of(head, t)[g * v.padded_width + in_group]);
        }
    }
}

template <class Scalar> basic_matrix<Scalar> kv_store::decode() const {
    basic_matrix<Scalar> numbers(size_ - first_, heads_ * layout_.head_dim);
    for (index_t t = first_; t < size_; ++t) {
        for (index_t head = 0; head < heads_; ++head) {
            get(head, t, numbers.data() + (t - first_) * numbers.cols() + head * layout_.head_dim);
        }
    }
    return numbers;
}

} // namespace detent::inline DETENT_ABI

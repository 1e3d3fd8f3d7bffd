// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "detent/io/compressed_words.hpp"
#include "detent/io/packed_parts.hpp"

namespace detent::inline DETENT_ABI::io {

DETENT_INLINE std::vector<std::uint8_t> words_of_codes(int bits, extents shape, std::vector<code> const& codes) {
    index_t const in_word = 32 / bits, words = ceil_div(shape.cols, in_word);
    std::vector<std::uint32_t> packed(static_cast<std::size_t>(shape.rows * words));
    for (index_t r = 0; r < shape.rows; ++r) {
        for (index_t k = 0; k < shape.cols; ++k) {
            std::uint32_t const c = codes[static_cast<std::size_t>(r * shape.cols + k)];
            packed[static_cast<std::size_t>(r * words + k / in_word)] |= c << (k % in_word * bits);
        }
    }
    return bytes_of(packed);
}

DETENT_INLINE std::vector<code> codes_of_words(int bits, extents shape, std::span<std::uint8_t const> bytes,
                                               bool dense) {
    index_t const in_word = 32 / bits;
    index_t const words = dense ? ceil_div(shape.cols * bits, 32) : ceil_div(shape.cols, in_word);
    std::vector<code> codes(static_cast<std::size_t>(shape.size()));
    for (index_t r = 0; r < shape.rows; ++r) {
        std::uint8_t const* const row = bytes.data() + r * words * 4;
        for (index_t k = 0; k < shape.cols; ++k) {
            index_t const bit = dense ? k * bits : k / in_word * 32 + k % in_word * bits;
            unsigned const low = row[bit / 8], high = bit % 8 + bits > 8 ? row[bit / 8 + 1] : 0U;
            codes[static_cast<std::size_t>(r * shape.cols + k)] =
                static_cast<code>((low | high << 8) >> (bit % 8) & ((1U << bits) - 1));
        }
    }
    return codes;
}

DETENT_INLINE std::vector<code> natural_codes(packed_matrix const& w) {
    auto const* const order = w.map.order();
    if (order == nullptr) {
        return linear_codes(w.bits, w.shape(), w.codes.bytes());
    }
    return linear_codes(w.bits, w.shape(), move_columns(w.bits, w.shape(), w.codes.data(), *order).bytes());
}

DETENT_INLINE std::vector<code> zero_codes(packed_matrix const& w) {
    std::vector<code> zeros;
    for (index_t row = 0; row < w.shape().rows; ++row) {
        for (index_t group = 0; group < w.scales.tiles.cols; ++group) {
            zeros.push_back(zero_code(w, row, group));
        }
    }
    return zeros;
}

DETENT_INLINE std::vector<code> transposed_codes(extents shape, std::vector<code> const& codes) {
    std::vector<code> turned(codes.size());
    for (index_t r = 0; r < shape.rows; ++r) {
        for (index_t c = 0; c < shape.cols; ++c) {
            turned[static_cast<std::size_t>(c * shape.rows + r)] = codes[static_cast<std::size_t>(r * shape.cols + c)];
        }
    }
    return turned;
}

DETENT_INLINE std::vector<std::uint8_t> transposed_words(extents shape, std::span<std::uint8_t const> words) {
    std::vector<std::uint8_t> turned(words.size());
    for (index_t r = 0; r < shape.rows; ++r) {
        for (index_t c = 0; c < shape.cols; ++c) {
            std::memcpy(turned.data() + (c * shape.rows + r) * 4, words.data() + (r * shape.cols + c) * 4, 4);
        }
    }
    return turned;
}

DETENT_INLINE std::vector<std::uint8_t> signed_bytes(int bits, std::vector<code> const& codes) {
    std::vector<std::uint8_t> numbers;
    for (code const c : codes) {
        numbers.push_back(static_cast<std::uint8_t>(c - (1 << (bits - 1))));
    }
    return numbers;
}

} // namespace detent::inline DETENT_ABI::io

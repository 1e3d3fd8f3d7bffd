// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "contestant.hpp"
#include "detent/matrix/packed_matrix.hpp"

namespace peers {

/// A message in the wire format of protocol buffers, written field by field. The numbers of fields are those of ONNX.
class message {
public:
    message& number(unsigned field, std::uint64_t value) {
        variable(field << 3U);
        variable(value);
        return *this;
    }
    message& text(unsigned field, std::string_view bytes) {
        variable(field << 3U | 2U);
        variable(bytes.size());
        bytes_ += bytes;
        return *this;
    }
    message& part(unsigned field, message const& m) { return text(field, m.bytes_); }

    std::string const& bytes() const { return bytes_; }

private:
    void variable(std::uint64_t value) { // seven bits in a byte, the lowest first
        for (; value >= 0x80; value >>= 7U) {
            bytes_ += static_cast<char>(value | 0x80);
        }
        bytes_ += static_cast<char>(value);
    }

    std::string bytes_;
};

namespace onnx {

enum class element { f32 = 1, u8 = 2 };

inline message tensor(std::string const& name, element type, std::vector<index_t> const& shape,
                      std::string_view bytes) {
    message m;
    for (index_t const n : shape) {
        m.number(1, static_cast<std::uint64_t>(n));
    }
    return m.number(2, static_cast<std::uint64_t>(type)).text(8, name).text(9, bytes);
}

/// The bytes of the rows of a matrix, beginning with row `first` and ending with the one before it.
inline std::string rotated(void const* data, index_t rows, index_t row_bytes, index_t first) {
    std::string_view const bytes(static_cast<char const*>(data), static_cast<std::size_t>(rows * row_bytes));
    auto const cut = static_cast<std::size_t>(first % rows * row_bytes);
    return std::string(bytes.substr(cut)).append(bytes.substr(0, cut));
}

/// The declaration of an input or output of floats (tokens, features).
inline message floats(std::string const& name, index_t features) {
    auto const shape = message()
                           .part(1, message().text(2, "tokens"))
                           .part(1, message().number(1, static_cast<std::uint64_t>(features)));
    auto const type = message().number(1, static_cast<std::uint64_t>(element::f32)).part(2, shape);
    return message().text(1, name).part(2, message().part(1, type));
}

inline message attribute(std::string const& name, index_t value) {
    constexpr int integer = 2;
    return message().text(1, name).number(3, static_cast<std::uint64_t>(value)).number(20, integer);
}

/// A model whose outputs y0, y1, ... are the products of the input x and `w`, with row 0, 1, ... as the first: memory
/// is shared among weights that are the same. The codes of `w` must be those of integers without a zero point.
inline std::string model_of_products(detent::packed_matrix const& w, index_t copies, int accuracy_level) {
    auto const [rows, cols] = w.shape();
    index_t const blocks = cols / w.tile.cols;
    message graph;
    graph.text(2, "products").part(11, floats("x", cols));
    for (index_t i = 0; i < copies; ++i) {
        auto const number = std::to_string(i);
        auto const name = [&](char const* start) { return start + number; };
        graph.part(5, tensor(name("codes"), element::u8, {rows, blocks, w.row_bytes() / blocks},
                             rotated(w.codes.data(), rows, w.row_bytes(), i)));
        graph.part(5, tensor(name("scales"), element::f32, {rows, blocks},
                             rotated(w.scales.scales.data(), rows, blocks * index_t{sizeof(float)}, i)));
        graph.part(12, floats(name("y"), rows));
        graph.part(1, message()
                          .text(1, "x")
                          .text(1, name("codes"))
                          .text(1, name("scales"))
                          .text(2, name("y"))
                          .text(3, name("product"))
                          .text(4, "MatMulNBits")
                          .text(7, "com.microsoft")
                          .part(5, attribute("K", cols))
                          .part(5, attribute("N", rows))
                          .part(5, attribute("bits", w.bits))
                          .part(5, attribute("block_size", w.tile.cols))
                          .part(5, attribute("accuracy_level", accuracy_level)));
    }
    auto const operators = [](char const* domain, std::uint64_t version) {
        return message().text(1, domain).number(2, version);
    };
    return message()
        .number(1, 9) // version of the format
        .part(8, operators("", 20))
        .part(8, operators("com.microsoft", 1))
        .part(7, graph)
        .bytes();
}

} // namespace onnx
} // namespace peers

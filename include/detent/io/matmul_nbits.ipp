// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "detent/core/error.hpp"
#include "detent/io/matmul_nbits.hpp"
#include "detent/io/packed_parts.hpp"
#include "detent/matrix/input_map.hpp"

namespace detent::inline DETENT_ABI::io {

/// The code that stands for 0 in a table of consecutive integers, of which the last may be missing; -1 for others.
inline int code_of_zero(std::span<float const> table) {
    float const lowest = table.front();
    auto const is_next = [&](std::size_t c) {
        return std::isnan(table[c]) || table[c] == lowest + static_cast<float>(c);
    };
    bool const offset = lowest <= 0 && lowest > -static_cast<float>(table.size()) && lowest == std::floor(lowest);
    for (std::size_t c = 0; offset && c < table.size(); ++c) {
        if (!is_next(c)) {
            return -1;
        }
    }
    return offset ? static_cast<int>(-lowest) : -1;
}

DETENT_INLINE index_t matmul_nbits_block(packed_matrix const& w) {
    constexpr index_t most = 256;
    if (w.tile.cols < w.shape().cols) {
        return std::min(most, w.tile.cols & -w.tile.cols);
    }
    return std::clamp<index_t>(static_cast<index_t>(std::bit_ceil(static_cast<std::uint64_t>(w.shape().cols))), 16,
                               128);
}

DETENT_INLINE std::string matmul_nbits_obstacle(packed_matrix const& w) {
    if (w.bits != 2 && w.bits != 4 && w.bits != 8) {
        return "it has " + std::to_string(w.bits) + " bits, ONNX Runtime's products 2, 4 or 8";
    }
    if (code_of_zero(w.table) < 0) {
        return "its numbers are no integers";
    }
    if (w.bits != 4 && !has_integer_zeros(w)) {
        return "its zero points are no integers, which ONNX Runtime has for 4 bits only";
    }
    if (matmul_nbits_block(w) < 16) {
        return "its scales are of " + std::to_string(w.tile.cols) + " inputs, ONNX Runtime's of a multiple of 16";
    }
    return {};
}

/// What is put together for a product.
class matmul_nbits_adder {
public:
    matmul_nbits_adder(onnx_writer& file, packed_matrix const& w, std::string const& name)
        : file_(file), w_(w), name_(name), block_(matmul_nbits_block(w)), blocks_(ceil_div(w.shape().cols, block_)) {}

    std::string add(std::string const& input) const {
        std::string const mapped = map(input);
        auto const [out, in] = w_.shape();
        std::vector<std::string> inputs{mapped, codes(), scales()};
        if (auto zeros = zero_points(); !zeros.empty()) {
            inputs.push_back(zeros);
        }
        auto const y = file_.node("MatMulNBits", inputs, name_,
                                  {{"K", std::int64_t{in}},
                                   {"N", std::int64_t{out}},
                                   {"bits", std::int64_t{w_.bits}},
                                   {"block_size", std::int64_t{block_}},
                                   {"accuracy_level", std::int64_t{1}}}, // inputs stay f32
                                  "com.microsoft");
        return w_.weak.empty() ? y : file_.node("Add", {y, weak(mapped)}, name_);
    }

private:
    std::string map(std::string x) const {
        index_t const in = w_.shape().cols;
        for (auto const& step : w_.map.steps()) {
            if (auto const* const p = std::get_if<permutation>(&step)) {
                auto const order =
                    file_.tensor(name_ + ".order", {in}, std::vector<std::int64_t>(p->order.begin(), p->order.end()));
                x = file_.node("Gather", {x, order}, name_, {{"axis", std::int64_t{-1}}});
            } else if (auto const* const d = std::get_if<diagonal>(&step)) {
                x = file_.node("Mul", {x, file_.tensor(name_ + ".factors", {in}, d->factors)}, name_);
            } else {
                x = rotate(x, std::get<block_hadamard>(step).width);
            }
        }
        return x;
    }

    /// Each `width` numbers of `x` times the Walsh-Hadamard matrix, whose rows and columns are in Sylvester's order.
    std::string rotate(std::string const& x, index_t width) const {
        std::vector<float> numbers;
        float const size = 1 / std::sqrt(static_cast<float>(width));
        for (index_t row = 0; row < width; ++row) {
            for (index_t col = 0; col < width; ++col) {
                numbers.push_back(std::popcount(static_cast<std::uint64_t>(row & col)) % 2 == 0 ? size : -size);
            }
        }
        auto const shape = file_.node("Shape", {x}, name_);
        auto const parts = file_.node("Reshape", {x, file_.list({-1, width})}, name_);
        auto const h = file_.tensor(name_ + ".hadamard", {width, width}, numbers);
        return file_.node("Reshape", {file_.node("MatMul", {parts, h}, name_), shape}, name_);
    }

    std::string codes() const {
        auto const [out, in] = w_.shape();
        index_t const bytes = block_ * w_.bits / 8;
        return file_.tensor(name_ + ".codes", onnx_type::u8, {out, blocks_, bytes},
                            [&w = w_, row_size = blocks_ * bytes](onnx_writer::sink const& to) {
                                std::vector<std::uint8_t> row(static_cast<std::size_t>(row_size)); // zeros at the end
                                for (index_t i = 0; i < w.shape().rows; ++i) {
                                    std::copy_n(w.codes.data() + i * w.row_bytes(), w.row_bytes(), row.begin());
                                    to(row);
                                }
                            });
    }

    /// `number(row, tile)` for each block of each row.
    template <class T, class Number> std::vector<T> of_blocks(Number const& number) const {
        std::vector<T> all;
        for (index_t row = 0; row < w_.shape().rows; ++row) {
            for (index_t block = 0; block < blocks_; ++block) {
                all.push_back(number(row, block));
            }
        }
        return all;
    }

    tile_scale scale(index_t row, index_t block) const {
        return w_.scales.at(row / w_.tile.rows, block * block_ / w_.tile.cols);
    }

    std::string scales() const {
        return file_.tensor(name_ + ".scales", {w_.shape().rows, blocks_},
                            of_blocks<float>([&](index_t row, index_t block) { return scale(row, block).scale; }));
    }

    /// None where they are those that the operator takes without.
    std::string zero_points() const {
        auto const lowest = static_cast<float>(code_of_zero(w_.table));
        auto const all = of_blocks<float>([&](index_t row, index_t block) { return lowest + scale(row, block).zero; });
        auto const middle = static_cast<float>(1 << (w_.bits - 1));
        if (std::ranges::all_of(all, [&](float z) { return z == middle; })) {
            return {};
        }
        index_t const rows = w_.shape().rows;
        if (!has_integer_zeros(w_)) {
            return file_.tensor(name_ + ".zeros", {rows, blocks_}, all);
        }
        index_t const row_bytes = ceil_div(blocks_ * w_.bits, 8);
        std::vector<code> codes(all.begin(), all.end());
        return file_.tensor(
            name_ + ".zeros", onnx_type::u8, {rows * row_bytes},
            [bytes = linear_bytes(w_.bits, {rows, blocks_}, codes)](onnx_writer::sink const& to) { to(bytes); });
    }

    /// What weak columns, in whose place codes stand for 0, add to the product.
    std::string weak(std::string const& mapped) const {
        auto const& weak = w_.weak;
        std::vector<float> numbers; // (column, out)
        for (index_t k = 0; k < weak.count(); ++k) {
            for (index_t row = 0; row < weak.rows(); ++row) {
                numbers.push_back(weak.at(k, row));
            }
        }
        auto const columns = file_.tensor(name_ + ".weak_columns", {weak.count()},
                                          std::vector<std::int64_t>(weak.columns().begin(), weak.columns().end()));
        auto const read = file_.node("Gather", {mapped, columns}, name_, {{"axis", std::int64_t{-1}}});
        return file_.node("MatMul", {read, file_.tensor(name_ + ".weak", {weak.count(), weak.rows()}, numbers)}, name_);
    }

    onnx_writer& file_;
    packed_matrix const& w_;
    std::string const& name_;
    index_t block_, blocks_;
};

DETENT_INLINE std::string add_matmul_nbits(onnx_writer& file, packed_matrix const& w, std::string const& name,
                                           std::string const& input) {
    if (auto const obstacle = matmul_nbits_obstacle(w); !obstacle.empty()) {
        throw error("layer '" + name + "'", "has no product in ONNX Runtime: " + obstacle);
    }
    expect_complete(w);
    return matmul_nbits_adder(file, w, name).add(input);
}

DETENT_INLINE void save_matmul_nbits(packed_matrix const& w, std::filesystem::path const& path) {
    onnx_writer file;
    file.input("x", onnx_type::f32, {"token", w.shape().cols});
    file.output("y", add_matmul_nbits(file, w, "weight", "x"), onnx_type::f32, {"token", w.shape().rows});
    file.save(path);
}

} // namespace detent::inline DETENT_ABI::io

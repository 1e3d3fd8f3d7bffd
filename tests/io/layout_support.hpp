// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "detent/grid/codebook_grid.hpp"
#include "detent/grid/fp_grid.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/io/layout_detent.hpp"
#include "detent/io/layout_gptq.hpp"
#include "detent/io/layout_owq.hpp"
#include "detent/io/packed_tensors.hpp"
#include "detent/matrix/dequantize.hpp"
#include "grid/own_grid.hpp"
#include "io/failure_message.hpp"
#include "io/temporary_directory.hpp"
#include "matrix/random_map.hpp"
#include "matrix/random_solution.hpp"
#include "matrix/random_weak.hpp"

// What the tests of several layouts need.

namespace detent::test {

using io::checkpoint;
using io::dtype;
using io::packed_layout;
using io::packed_reader;
using io::safetensors_writer;

inline nlohmann::json gptq_v1() { return {{"quant_method", "gptq"}}; }
inline nlohmann::json gptq_v2() { return {{"quant_method", "gptq"}, {"checkpoint_format", "gptq_v2"}}; }
inline nlohmann::json owq_settings() { return {{"quant_method", "owq"}}; }
inline nlohmann::json detent_settings() { return {{"format", "detent"}}; }

/// A reader of a file with such settings.
inline packed_reader reader_of(checkpoint const& file, nlohmann::json const& settings) {
    return {file, io::quantization_settings(settings, "config.json")};
}

template <Grid G> packed_matrix random_packed(G const& grid, extents shape, extents tile, bool reordered = false) {
    solution s = test::random_solution(grid, shape, tile, 1);
    if (reordered) {
        s.map = input_map(permutation{test::random_order(shape.cols, 2)}, shape.cols);
    }
    return pack(s);
}

/// The same with weak columns.
template <Grid G>
packed_matrix random_weak(G const& grid, extents shape, extents tile, index_t count, float_format format,
                          bool reordered = false) {
    solution s = test::random_solution(grid, shape, tile, 1);
    test::weaken(s, grid, test::random_columns(shape.cols, count, 3), format);
    if (reordered) {
        s.map = input_map(permutation{test::random_order(shape.cols, 2)}, shape.cols);
    }
    return pack(s);
}

/// The elements of a tensor.
template <class T> std::vector<T> elements(checkpoint const& file, std::string const& name) {
    auto const bytes = file.at(name).bytes;
    std::vector<T> values(bytes.size() / sizeof(T));
    std::memcpy(values.data(), bytes.data(), bytes.size());
    return values;
}

/// `bits` bits from `position` on of the words, which lie `stride` apart.
inline unsigned field(std::vector<std::uint32_t> const& words, index_t first, index_t stride, index_t position,
                      int bits) {
    unsigned value = 0;
    for (int b = 0; b < bits; ++b) {
        index_t const bit = position * bits + b;
        value |= (words[static_cast<std::size_t>(first + bit / 32 * stride)] >> (bit % 32) & 1U) << b;
    }
    return value;
}

struct half_integers {
    static constexpr std::array<float, 4> values{-1.5F, -0.5F, 0.5F, 1.5F};
};
struct far_integers {
    static constexpr std::array<float, 4> values{-20.0F, -19.0F, -18.0F, -17.0F};
};

/// The tensors of a checkpoint, to be changed before they are written.
struct tensor {
    dtype type;
    std::vector<index_t> shape;
    std::vector<std::uint8_t> bytes;

    template <class T> static tensor of(dtype type, std::vector<index_t> shape, std::vector<T> const& values) {
        return {type, std::move(shape), io::bytes_of(values)};
    }
    template <class T> void set(std::size_t i, T value) {
        std::memcpy(bytes.data() + i * sizeof(T), &value, sizeof(T));
    }
};
using tensors = std::map<std::string, tensor>;

using add_function = std::function<void(safetensors_writer&, std::string const&, packed_matrix const&)>;

/// Adds a layer in version 2 of GPTQ's layout.
inline void add_gptq_v2(safetensors_writer& file, std::string const& name, packed_matrix const& w) {
    io::add_gptq(file, name, w);
}

/// The tensors of a file.
inline tensors tensors_of(checkpoint const& file) {
    tensors all;
    for (std::string const& name : file.names()) {
        auto const& t = file.at(name);
        all[name] = {t.type, t.shape, {t.bytes.begin(), t.bytes.end()}};
    }
    return all;
}

/// The tensors of layer "layer" as `add` writes them.
inline tensors tensors_of(add_function const& add, packed_matrix const& w) {
    temporary_directory const directory;
    safetensors_writer writer;
    add(writer, "layer", w);
    writer.save(directory / "model.safetensors");
    return tensors_of(checkpoint(directory / "model.safetensors"));
}

/// Calls `f(reader)` with a reader of these tensors; without settings, of detent's layout or GPTQ's, as names say.
template <class F> auto with_reader(tensors const& all, nlohmann::json settings, F const& f) {
    if (settings.is_null()) {
        bool const own = all.contains("layer.codes") || all.contains("layer.table") || all.contains("layer0.codes");
        settings = own ? detent_settings() : gptq_v2();
    }
    temporary_directory const directory;
    safetensors_writer writer;
    for (auto const& [name, t] : all) {
        writer.add(name, t.type, t.shape, t.bytes);
    }
    writer.save(directory / "model.safetensors");
    checkpoint const file(directory / "model.safetensors");
    return f(reader_of(file, settings));
}

/// Reads layer "layer".
inline packed_matrix read(tensors const& all, extents shape, nlohmann::json const& settings = {}) {
    return with_reader(all, settings, [&](packed_reader const& reader) { return reader.read("layer", shape); });
}

/// Writes the matrices with `add` to one file and reads them back.
inline std::vector<packed_matrix> written_and_read(add_function const& add, std::vector<packed_matrix> const& matrices,
                                                   nlohmann::json const& settings = {}) {
    temporary_directory const directory;
    safetensors_writer writer;
    for (std::size_t i = 0; i < matrices.size(); ++i) {
        add(writer, "layer" + std::to_string(i), matrices[i]);
    }
    writer.save(directory / "model.safetensors");
    return with_reader(tensors_of(checkpoint(directory / "model.safetensors")), settings, [&](auto const& reader) {
        EXPECT_FALSE(reader.contains("layer"));
        std::vector<packed_matrix> read;
        for (std::size_t i = 0; i < matrices.size(); ++i) {
            std::string const name = "layer" + std::to_string(i);
            EXPECT_TRUE(reader.contains(name));
            read.push_back(reader.read(name, matrices[i].shape()));
        }
        return read;
    });
}

/// After `change`, reading fails with a message that names the tensor and contains `problem`.
inline void expect_refused(tensors all, extents shape, std::string const& name, std::string const& problem,
                           std::function<void(tensors&)> const& change, nlohmann::json const& settings = {}) {
    ASSERT_EQ(failure_message([&] { read(all, shape, settings); }), "");
    change(all);
    std::string const message = failure_message([&] { read(all, shape, settings); });
    EXPECT_TRUE(contains(message, "'layer." + name + "'")) << name << ": " << message;
    EXPECT_TRUE(contains(message, problem)) << name << ": " << message;
}

/// What both layouts with weak columns refuse, by the names of their tensors.
inline void expect_bad_weak_columns_refused(tensors const& good, extents shape, std::string const& positions,
                                            std::string const& numbers, std::string const& codes) {
    std::string const at = "layer." + positions;
    std::string const weak = "layer." + numbers;
    auto const refused = [&](std::string const& name, std::string const& problem,
                             std::function<void(tensors&)> const& change) {
        expect_refused(good, shape, name, problem, change);
    };
    ASSERT_EQ(good.at(at).shape, std::vector<index_t>{4}); // column 0, two in between, the last one
    refused(numbers, "is missing", [&](tensors& t) { t.erase(weak); });
    using limits = std::numeric_limits<std::int32_t>;
    for (std::int32_t const column : {-1, static_cast<std::int32_t>(shape.cols), limits::max(), limits::min()}) {
        refused(positions, "names a column that is not there", [&](tensors& t) { t[at].set(3, column); });
    }
    refused(positions, "is not ascending", [&](tensors& t) { // the same one twice
        std::memcpy(t[at].bytes.data() + 4, t[at].bytes.data() + 8, 4);
    });
    refused(positions, "is not ascending", [&](tensors& t) { t[at].set(3, std::int32_t{0}); });
    refused(positions, "", [&](tensors& t) { t[at].shape = {2, 2}; });
    refused(positions, "has type F32", [&](tensors& t) { t[at].type = dtype::f32; });
    refused(numbers, "must have the shape (3, ", [&](tensors& t) {
        t[at].shape = {3};
        t[at].bytes.resize(12);
    });
    refused(numbers, "must have the shape (4, ", [&](tensors& t) { t[weak].shape = {2, 2 * shape.rows}; });
    refused(numbers, "has type I16", [&](tensors& t) { t[weak].type = dtype::i16; });
    refused(numbers, "has type F64", [&](tensors& t) {
        t[weak] = tensor::of(dtype::f64, t[weak].shape, std::vector<double>(static_cast<std::size_t>(4 * shape.rows)));
    });
    for (int const number : {0x7E00, 0x7C00, 0xFC00}) {
        refused(numbers, "not finite", [&](tensors& t) { t[weak].set(7, static_cast<std::uint16_t>(number)); });
    }
    refused(codes, "has a code in a weak column that does not stand for 0",
            [&](tensors& t) { t["layer." + codes].bytes[0] ^= 1; });
}

/// Changes random bytes and extents: reading throws error or succeeds with weak columns that make sense.
inline void expect_survives(tensors const& good, extents shape, nlohmann::json const& layout) {
    std::mt19937 random(1);
    int refused = 0;
    int accepted = 0;
    for (int trial = 0; trial < 100; ++trial) {
        tensors all = good;
        for (auto changes = 1 + random() % 3; changes > 0; --changes) {
            auto& t = std::next(all.begin(), static_cast<std::ptrdiff_t>(random() % all.size()))->second;
            auto const kind = random() % 4;
            if (kind < 2 && !t.bytes.empty()) {
                t.bytes[random() % t.bytes.size()] ^= static_cast<std::uint8_t>(1U << random() % 8);
            } else if (kind == 2 && !t.shape.empty() && t.shape[0] > 0) { // fewer rows
                index_t const rows = static_cast<index_t>(random() % static_cast<unsigned>(t.shape[0]));
                t.bytes.resize(t.bytes.size() / static_cast<std::size_t>(t.shape[0]) * static_cast<std::size_t>(rows));
                t.shape[0] = rows;
            } else if (t.shape.size() == 2) {
                std::swap(t.shape[0], t.shape[1]);
            }
        }
        packed_matrix w;
        std::string const message = failure_message([&] { w = read(all, shape, layout); });
        (message.empty() ? accepted : refused) += 1;
        for (index_t k = 0; k < w.weak.count(); ++k) {
            index_t const col = w.weak.columns()[static_cast<std::size_t>(k)];
            ASSERT_TRUE(col >= 0 && col < shape.cols) << trial;
            for (index_t row = 0; row < shape.rows; ++row) {
                ASSERT_TRUE(std::isfinite(w.weak.at(k, row))) << trial;
                tile_scale const s = w.scales.at(row / w.tile.rows, col / w.tile.cols);
                ASSERT_EQ(w.table[w.code_at(row, col)], s.zero) << trial;
            }
        }
    }
    EXPECT_GT(refused, 0);
    EXPECT_GT(accepted, 0);
}

} // namespace detent::test

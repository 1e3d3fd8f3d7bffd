// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "detent/core/eigen.hpp"
#include "detent/grid/codebook_grid.hpp"
#include "detent/grid/fp_grid.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/io/ggml_type.hpp"
#include "detent/io/matmul_nbits.hpp"
#include "detent/matrix/dequantize.hpp"
#include "io/layout_support.hpp"
#include "io/onnx_reader.hpp"
#include "io/onnxruntime.hpp"

namespace detent::test {
namespace {

using io::matmul_nbits_obstacle;

/// Element `i` of a stream of codes of so many bits, lowest first.
unsigned field(std::string const& bytes, index_t i, int bits) {
    auto const byte = static_cast<unsigned char>(bytes.at(static_cast<std::size_t>(i * bits / 8)));
    return byte >> (i * bits % 8) & ((1U << bits) - 1);
}

/// The weights that a node stands for by ONNX Runtime's description of it, (out, in).
matrix weights_of(onnx_stored_model const& file, onnx_stored_node const& node) {
    auto const get = [&](char const* name) { return node.integers.at(name); };
    index_t const out = get("N"), in = get("K"), block = get("block_size"), blocks = (in + block - 1) / block;
    int const bits = static_cast<int>(get("bits"));
    auto const& codes = file.tensors.at(node.inputs.at(1));
    EXPECT_EQ(codes.shape, (std::vector<std::int64_t>{out, blocks, block * bits / 8}));
    auto const scales = file.tensors.at(node.inputs.at(2)).numbers<float>();
    bool const has_zeros = node.inputs.size() > 3;
    index_t const zero_bytes = (blocks * bits + 7) / 8;
    matrix w(out, in);
    for (index_t n = 0; n < out; ++n) {
        for (index_t k = 0; k < in; ++k) {
            index_t const b = k / block;
            auto const code = static_cast<float>(field(codes.bytes, n * blocks * block + k, bits));
            float zero = static_cast<float>(1 << (bits - 1));
            if (has_zeros) {
                auto const& zeros = file.tensors.at(node.inputs.at(3));
                zero = zeros.type == 1 ? zeros.numbers<float>().at(static_cast<std::size_t>(n * blocks + b))
                                       : static_cast<float>(field(
                                             zeros.bytes.substr(static_cast<std::size_t>(n * zero_bytes)), b, bits));
            }
            w(n, k) = (code - zero) * scales.at(static_cast<std::size_t>(n * blocks + b));
        }
    }
    return w;
}

/// Saves a product, compares what is stored with the matrix to the bit, and what ONNX Runtime makes of it with a
/// product in double.
class matmul_nbits : public testing::Test {
protected:
    void expect_exact(packed_matrix const& w) {
        io::save_matmul_nbits(w, directory_ / "model.onnx");
        onnx_stored_model const file(directory_ / "model.onnx");
        auto const nodes = file.of_type("MatMulNBits");
        ASSERT_EQ(nodes.size(), 1U);
        EXPECT_EQ(nodes[0].domain, "com.microsoft");
        EXPECT_EQ(nodes[0].integers.at("accuracy_level"), 1);
        matrix const stored = weights_of(file, nodes[0]);
        for (index_t row = 0; row < w.shape().rows; ++row) {
            for (index_t col = 0; col < w.shape().cols; ++col) {
                if (w.weak.find(col) < 0) {
                    ASSERT_EQ(stored(row, col), w.stored_at(row, col)) << row << ", " << col;
                }
            }
        }
    }

    /// The largest error over the largest result; nothing is said where there is no ONNX Runtime.
    void expect_runs(packed_matrix const& w, double tolerance = 1e-6) {
        index_t const tokens = 7;
        std::mt19937 random(1);
        std::normal_distribution<float> normal;
        std::vector<float> x(static_cast<std::size_t>(tokens * w.shape().cols));
        for (float& number : x) {
            number = normal(random);
        }
        auto const y = run_onnxruntime(directory_.path(), x);
        DETENT_SKIP_WITHOUT_ONNXRUNTIME(y);
        using doubles = basic_matrix<double>;
        doubles const inputs = Eigen::Map<matrix const>(x.data(), tokens, w.shape().cols).cast<double>();
        doubles const expected = inputs * dequantize(w).cast<double>().transpose(); // (token, out)
        ASSERT_EQ(std::ssize(*y), expected.size());
        doubles const made = Eigen::Map<matrix const>(y->data(), tokens, w.shape().rows).cast<double>();
        EXPECT_LT((made - expected).cwiseAbs().maxCoeff() / expected.cwiseAbs().maxCoeff(), tolerance);
    }

    temporary_directory directory_;
};

TEST_F(matmul_nbits, integers_with_zero_points) {
    auto const w = random_packed(int_grid<4>{}, {48, 320}, {1, 32});
    expect_exact(w);
    expect_runs(w);
}

TEST_F(matmul_nbits, symmetric_integers_need_no_zero_points) {
    auto const w = random_packed(int_grid<8, zero::none>{}, {20, 256}, {1, 64});
    expect_exact(w);
    EXPECT_EQ(onnx_stored_model(directory_ / "model.onnx").of_type("MatMulNBits")[0].inputs.size(), 3U);
    expect_runs(w);
}

TEST_F(matmul_nbits, integers_of_8_bits_with_zero_points) {
    auto const w = random_packed(int_grid<8>{}, {20, 300}, {1, 128}); // the last group is short
    expect_exact(w);
    expect_runs(w);
}

TEST_F(matmul_nbits, integers_of_2_bits) { // which ONNX Runtime 1.23 does not run
    expect_exact(random_packed(int_grid<2>{}, {9, 144}, {1, 16}));
    expect_exact(random_packed(ternary{}, {9, 144}, {1, 48})); // of which three codes are used
}

TEST_F(matmul_nbits, scales_of_several_rows_and_of_whole_ones_are_repeated) {
    expect_exact(random_packed(int_grid<4>{}, {10, 96}, {4, 96}));
    auto const w = random_packed(int_grid<4, zero::none>{}, {24, 1024}, {3, 512});
    expect_exact(w);
    expect_runs(w);
}

TEST_F(matmul_nbits, inputs_are_mapped_before) {
    auto w = random_packed(int_grid<4>{}, {16, 128}, {1, 32}, true);
    std::vector<float> factors(128);
    for (std::size_t k = 0; k < factors.size(); ++k) {
        factors[k] = 0.5F + static_cast<float>(k % 5);
    }
    w.map.then(diagonal{factors}, 128).then(block_hadamard{64}, 128);
    expect_exact(w);
    expect_runs(w, 2e-6); // sums of the rotation come on top
}

TEST_F(matmul_nbits, weak_columns_are_a_product_of_their_own) {
    auto const w = random_weak(int_grid<4>{}, {16, 128}, {1, 32}, 5, float_format::f16, true);
    expect_exact(w);
    expect_runs(w);
}

TEST_F(matmul_nbits, zero_points_between_integers_as_files_of_ggml_have_them) {
    auto w = random_packed(int_grid<4>{}, {16, 64}, {1, 32});
    for (float& zero : w.scales.zeros) {
        zero += 0.3F;
    }
    expect_exact(w);
    expect_runs(w);
}

TEST(matmul_nbits_obstacle, names_what_the_operator_lacks) {
    EXPECT_EQ(matmul_nbits_obstacle(random_packed(int_grid<4>{}, {4, 64}, {1, 48})), "");
    EXPECT_EQ(matmul_nbits_obstacle(random_packed(int_grid<3>{}, {4, 64}, {1, 32})),
              "it has 3 bits, ONNX Runtime's products 2, 4 or 8");
    EXPECT_EQ(matmul_nbits_obstacle(random_packed(e2m1{}, {4, 64}, {1, 32})), "its numbers are no integers");
    EXPECT_EQ(matmul_nbits_obstacle(random_packed(int_grid<4>{}, {4, 64}, {1, 24})),
              "its scales are of 24 inputs, ONNX Runtime's of a multiple of 16");
    auto between = random_packed(int_grid<8>{}, {4, 64}, {1, 32});
    between.scales.zeros[3] = 1.5F;
    EXPECT_EQ(matmul_nbits_obstacle(between),
              "its zero points are no integers, which ONNX Runtime has for 4 bits only");
    temporary_directory const directory;
    EXPECT_EQ(failure_message([&] {
                  io::save_matmul_nbits(random_packed(int_grid<5>{}, {4, 64}, {1, 32}), directory / "model.onnx");
              }),
              "layer 'weight': has no product in ONNX Runtime: it has 5 bits, ONNX Runtime's products 2, 4 or 8");
}

TEST(matmul_nbits_block, divides_the_tiles) {
    auto const of = [](index_t in, index_t group) {
        return io::matmul_nbits_block(random_packed(int_grid<4>{}, {1, in}, {1, group}));
    };
    EXPECT_EQ(of(256, 32), 32);
    EXPECT_EQ(of(256, 96), 32);
    EXPECT_EQ(of(2048, 1024), 256);
    EXPECT_EQ(of(1024, 1024), 128);
    EXPECT_EQ(of(20, 20), 32);
    EXPECT_EQ(of(3, 3), 16);
}

} // namespace
} // namespace detent::test

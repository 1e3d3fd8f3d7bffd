// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <cstdint>
#include <vector>

#include <gtest/gtest.h>

#include "detent/kernel/dense.hpp"
#include "kernel/mapped_bytes.hpp"
#include "kernel/products.hpp"

namespace {

using namespace detent;

/// Small integers, whose products are exact in any order.
std::vector<float> small_integers(index_t n) {
    std::vector<float> all;
    for (index_t i = 0; i < n; ++i) {
        all.push_back(static_cast<float>(i * 7 % 11 - 5));
    }
    return all;
}

std::vector<std::uint8_t> stored(std::vector<float> const& numbers, float_format format) {
    std::vector<std::uint8_t> bytes;
    for (float const v : numbers) {
        auto const put = [&](auto number) {
            auto const* const from = reinterpret_cast<std::uint8_t const*>(&number);
            bytes.insert(bytes.end(), from, from + sizeof number);
        };
        format == float_format::f16 ? put(half(v)) : format == float_format::bf16 ? put(bfloat16(v)) : put(v);
    }
    return bytes;
}

TEST(multiply_dense, reads_nothing_after_the_last_number) {
    for (float_format const format : test::all_formats) {
        for (extents const shape : {extents{5, 21}, {67, 300}}) {
            auto const w = small_integers(shape.size());
            auto const bytes = stored(w, format);
            test::mapped_bytes const mapped(bytes.data(), bytes.size());
            for (index_t const tokens : {1, 3, 8, 20}) {
                auto const x = small_integers(tokens * shape.cols);
                std::vector<float> y(static_cast<std::size_t>(tokens * shape.rows));
                kernel::multiply_dense({mapped.data(), format, shape}, x.data(), shape.cols, tokens, y.data(),
                                       shape.rows, epilogue{});
                for (index_t i = 0; i < tokens * shape.rows; ++i) {
                    float sum = 0;
                    for (index_t k = 0; k < shape.cols; ++k) {
                        sum += w[static_cast<std::size_t>(i % shape.rows * shape.cols + k)] *
                               x[static_cast<std::size_t>(i / shape.rows * shape.cols + k)];
                    }
                    ASSERT_EQ(y[static_cast<std::size_t>(i)], sum);
                }
            }
        }
    }
}

} // namespace

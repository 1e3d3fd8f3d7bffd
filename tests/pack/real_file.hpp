// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "detent/io/safetensors.hpp"
#include "detent/pack/packing.hpp"

namespace detent::test {

/// Every `qweight` of a checkpoint that another program wrote becomes codes, and those become the same bytes again;
/// `shape_of(tensor)` says which weights (out, in) it holds.
template <Packing P, class Shape> void expect_bytes_of_real_file(std::string const& client, Shape const& shape_of) {
    auto const path = std::filesystem::path(DETENT_SHARED_DIR) / "clients/foreign" / client / "model.safetensors";
    if (!std::filesystem::exists(path)) {
        GTEST_SKIP() << "there is no " << path;
    }
    io::checkpoint const file(path);
    int tensors = 0;
    for (std::string const& name : file.names()) {
        auto const& t = file.at(name);
        if (name.ends_with(".qweight")) {
            extents const shape = shape_of(t);
            ASSERT_EQ(P::bytes(shape), std::ssize(t.bytes));
            std::vector<code> codes(static_cast<std::size_t>(shape.size()));
            P::unpack(t.bytes.data(), shape, codes.data());
            std::vector<std::uint8_t> bytes(t.bytes.size());
            P::pack(codes.data(), shape, bytes.data());
            EXPECT_TRUE(std::ranges::equal(bytes, t.bytes)) << name;
            ++tensors;
        }
    }
    EXPECT_GT(tensors, 0);
}

} // namespace detent::test

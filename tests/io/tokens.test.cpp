// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "detent/io/tokens.hpp"

#include <cstdint>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "detent/io/text_file.hpp"
#include "failure_message.hpp"
#include "temporary_directory.hpp"

namespace {

using tokens = std::vector<std::int32_t>;

class read_tokens : public ::testing::Test {
protected:
    tokens read(std::string const& name, std::string const& bytes) const {
        detent::io::write_text(directory_ / name, bytes);
        return detent::io::read_tokens(directory_ / name);
    }
    std::string problem(std::string const& name, std::string const& bytes) const {
        auto const message = failure_message([&] { read(name, bytes); });
        EXPECT_EQ(message.find((directory_ / name).string() + ": "), 0);
        return message;
    }
    temporary_directory directory_;
};

TEST_F(read_tokens, by_extension) {
    EXPECT_EQ(read("a.u16", std::string("\x01\x00\x00\x80\xFF\xFF", 6)), (tokens{1, 32768, 65535}));
    EXPECT_EQ(read("a.u32", std::string("\x01\x02\x03\x04\xFF\xFF\xFF\x7F", 8)), (tokens{0x04030201, 2147483647}));
    EXPECT_EQ(read("a.txt", "A\xFF"), (tokens{65, 255}));
    EXPECT_EQ(read("u16", "A\n"), (tokens{65, 10}));
    for (std::string const name : {"a.u16", "a.u32", "a.txt"}) {
        EXPECT_EQ(read(name, ""), tokens{});
    }
}

TEST_F(read_tokens, rejects_partial_and_oversized_ids) {
    EXPECT_TRUE(contains(problem("a.u16", "abc"), "holds 3 bytes, not a multiple of the 2 bytes of a token id"));
    EXPECT_TRUE(contains(problem("a.u32", "abcdef"), "holds 6 bytes, not a multiple of the 4 bytes of a token id"));
    EXPECT_TRUE(contains(problem("a.u32", std::string("\0\0\0\0\0\0\0\x80", 8)), "token 1 is 2147483648, beyond"));
}

TEST_F(read_tokens, names_a_missing_file) {
    auto const path = directory_ / "missing.u16";
    EXPECT_TRUE(contains(failure_message([&] { detent::io::read_tokens(path); }), path.string()));
}

} // namespace

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "detent/calibrate/hessians.hpp"
#include "detent/io/safetensors.hpp"
#include "io/failure_message.hpp"
#include "io/temporary_directory.hpp"
#include "nn/random_matrix.hpp"

namespace detent {
namespace {

using test::random_matrix;

template <class T> std::vector<std::uint8_t> bytes_of(std::vector<T> const& numbers) {
    auto const* const first = reinterpret_cast<std::uint8_t const*>(numbers.data());
    return {first, first + numbers.size() * sizeof(T)};
}

class saved_hessians : public testing::Test {
protected:
    /// What loading complains about in a file of these two tensors.
    std::string complaint(std::vector<double> const& sum, std::vector<std::int64_t> const& tokens) {
        io::safetensors_writer writer;
        writer.add("up", io::dtype::f64, {std::ssize(sum)}, bytes_of(sum));
        writer.add("up.tokens", io::dtype::i64, {std::ssize(tokens)}, bytes_of(tokens));
        return complaint(writer);
    }
    std::string complaint(io::safetensors_writer const& writer) {
        writer.save(path_);
        return failure_message([&] { load_hessians(path_); });
    }
    void expect_names(std::string const& message, std::string const& tensor, std::string const& problem) const {
        EXPECT_TRUE(message.starts_with(path_.string() + ", tensor '" + tensor + "'")) << message;
        EXPECT_TRUE(contains(message, problem)) << message;
    }

    temporary_directory directory_;
    std::filesystem::path path_ = directory_ / "hessians.safetensors";
};

TEST_F(saved_hessians, come_back_to_the_bit) {
    std::map<std::string, hessian> saved;
    for (index_t const features : {0, 1, 2, 7, 130}) {
        saved.emplace("layer " + std::to_string(features), hessian::of(random_matrix(300, features, 1)));
    }
    saved.emplace("nothing seen", hessian(5));
    save_hessians(path_, saved);
    auto const loaded = load_hessians(path_);

    ASSERT_EQ(loaded.size(), saved.size());
    for (auto const& [name, h] : saved) {
        auto const& other = loaded.at(name);
        EXPECT_EQ(other.tokens(), h.tokens()) << name;
        ASSERT_EQ(other.features(), h.features()) << name;
        for (index_t i = 0; i < h.features(); ++i) {
            for (index_t j = i; j < h.features(); ++j) {
                ASSERT_EQ(other.sum()(i, j), h.sum()(i, j)) << name;
            }
        }
    }
    EXPECT_EQ(directory_.entries(), 1);
}

TEST_F(saved_hessians, are_the_upper_triangle_row_after_row) {
    basic_matrix<double> const sum{{1, 2, 3}, {0, 4, 5}, {0, 0, 6}};
    save_hessians(path_, {{"down", hessian(sum, 9)}});
    io::safetensors_file const file(path_);
    EXPECT_EQ(file.names(), (std::vector<std::string>{"down", "down.tokens"}));
    EXPECT_EQ(file.at("down").type, io::dtype::f64);
    EXPECT_EQ(file.at("down").shape, std::vector<index_t>{6});
    EXPECT_TRUE(std::ranges::equal(file.at("down").bytes, bytes_of<double>({1, 2, 3, 4, 5, 6})));
    EXPECT_EQ(file.at("down.tokens").type, io::dtype::i64);
    EXPECT_TRUE(std::ranges::equal(file.at("down.tokens").bytes, bytes_of<std::int64_t>({9})));
}

TEST_F(saved_hessians, add_up_to_what_one_run_sees) {
    matrix const x = random_matrix(500, 40, 2);
    save_hessians(path_, {{"up", hessian::of(x.topRows(170))}});
    hessian merged = load_hessians(path_).at("up");
    save_hessians(path_, {{"up", hessian::of(x.bottomRows(330))}});
    merged += load_hessians(path_).at("up");

    EXPECT_EQ(merged.tokens(), 500);
    Eigen::MatrixXd const expected = 2.0 / 500 * x.cast<double>().transpose() * x.cast<double>();
    for (index_t i = 0; i < 40; ++i) {
        for (index_t j = 0; j < 40; ++j) {
            EXPECT_NEAR(merged(i, j), expected(i, j), 1e-5);
        }
    }
}

TEST_F(saved_hessians, truncated_file) {
    save_hessians(path_, {{"up", hessian::of(random_matrix(50, 20, 3))}});
    std::filesystem::resize_file(path_, std::filesystem::file_size(path_) - 100);
    std::string const message = failure_message([&] { load_hessians(path_); });
    EXPECT_TRUE(contains(message, path_.string())) << message;
    EXPECT_TRUE(contains(message, "truncated")) << message;
    EXPECT_TRUE(contains(failure_message([&] { load_hessians(directory_ / "none"); }), "none"));
}

TEST_F(saved_hessians, wrong_sizes) {
    EXPECT_EQ(complaint({1, 2, 3}, {4}), "");
    expect_names(complaint({1, 2, 3, 4}, {4}), "up", "4 numbers");
    expect_names(complaint({1, 2}, {4}), "up", "2 numbers");
    expect_names(complaint({1, 2, 3}, {4, 5}), "up.tokens", "2 numbers");
    expect_names(complaint({1, 2, 3}, {}), "up.tokens", "0 numbers");
    expect_names(complaint({1, 2, 3}, {-4}), "up.tokens", "-4");
}

TEST_F(saved_hessians, numbers_that_are_not_finite) {
    expect_names(complaint({1, 2, 3, 4, std::numeric_limits<double>::infinity(), 6}, {4}), "up", "row 1");
    expect_names(complaint({1, 2, 3, 4, 5, std::numeric_limits<double>::quiet_NaN()}, {4}), "up", "row 2");
}

TEST_F(saved_hessians, more_tokens_than_can_be_counted) {
    std::int64_t const many = std::int64_t{1} << 62;
    ASSERT_EQ(complaint({1, 2, 3}, {many}), "");
    hessian sum = load_hessians(path_).at("up");
    hessian const before = sum;
    std::string const message = failure_message([&] { sum += before; });
    EXPECT_TRUE(contains(message, "hessian")) << message;
    EXPECT_TRUE(contains(message, "more tokens than can be counted")) << message;
    EXPECT_EQ(sum.tokens(), many); // as it was
    EXPECT_EQ(sum.sum(), before.sum());
    ASSERT_EQ(complaint({1, 2, 3}, {std::numeric_limits<std::int64_t>::max()}), "");
    hessian full = load_hessians(path_).at("up");
    full += hessian(2);
    EXPECT_TRUE(contains(failure_message([&] { full.add(matrix::Ones(1, 2)); }), "more tokens"));
    EXPECT_EQ(full.sum(), before.sum());
}

TEST_F(saved_hessians, wrong_types) {
    io::safetensors_writer sum;
    sum.add("up", io::dtype::f32, {3}, bytes_of<float>({1, 2, 3}));
    sum.add("up.tokens", io::dtype::i64, {1}, bytes_of<std::int64_t>({4}));
    expect_names(complaint(sum), "up", "F32");

    io::safetensors_writer tokens;
    tokens.add("up", io::dtype::f64, {3}, bytes_of<double>({1, 2, 3}));
    tokens.add("up.tokens", io::dtype::i32, {1}, bytes_of<std::int32_t>({4}));
    expect_names(complaint(tokens), "up.tokens", "I32");

    io::safetensors_writer square;
    square.add("up", io::dtype::f64, {1, 3}, bytes_of<double>({1, 2, 3}));
    square.add("up.tokens", io::dtype::i64, {1}, bytes_of<std::int64_t>({4}));
    expect_names(complaint(square), "up", "rank 2");
}

TEST_F(saved_hessians, halves) {
    io::safetensors_writer sum;
    sum.add("up", io::dtype::f64, {3}, bytes_of<double>({1, 2, 3}));
    expect_names(complaint(sum), "up.tokens", "missing");

    io::safetensors_writer tokens;
    tokens.add("up.tokens", io::dtype::i64, {1}, bytes_of<std::int64_t>({4}));
    expect_names(complaint(tokens), "up", "missing");
}

TEST_F(saved_hessians, a_failed_save_leaves_what_was_there) {
    save_hessians(path_, {{"up", hessian(2)}});
    std::string const clash = failure_message([&] {
        save_hessians(path_, {{"a", hessian(1)}, {"a.tokens", hessian(1)}});
    });
    EXPECT_TRUE(contains(clash, "a.tokens")) << clash;
    EXPECT_TRUE(load_hessians(path_).contains("up"));
    std::string const nowhere = failure_message([&] { save_hessians(directory_ / "none" / "h", {}); });
    EXPECT_TRUE(contains(nowhere, "none")) << nowhere;
}

} // namespace
} // namespace detent

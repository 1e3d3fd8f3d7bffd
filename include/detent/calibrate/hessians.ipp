// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "detent/calibrate/hessians.hpp"
#include "detent/core/eigen.hpp"
#include "detent/core/error.hpp"
#include "detent/evidence/hessian.hpp"
#include "detent/io/safetensors.hpp"

namespace detent::inline DETENT_ABI {

DETENT_INLINE void save_hessians(std::filesystem::path const& path, std::map<std::string, hessian> const& hessians) {
    io::safetensors_writer writer;
    for (auto const& [name, h] : hessians) {
        index_t const n = h.features();
        index_t const size = n * (n + 1) / 2;
        std::vector<std::uint8_t> bytes(static_cast<std::size_t>(size) * sizeof(double));
        std::uint8_t* out = bytes.data();
        for (index_t row = 0; row < n; ++row) {
            std::size_t const length = static_cast<std::size_t>(n - row) * sizeof(double);
            std::memcpy(out, &h.sum()(row, row), length);
            out += length;
        }
        writer.add(name, io::dtype::f64, {size}, std::move(bytes));
        auto const tokens = std::bit_cast<std::array<std::uint8_t, sizeof(std::int64_t)>>(std::int64_t{h.tokens()});
        writer.add(name + ".tokens", io::dtype::i64, {1}, std::vector(tokens.begin(), tokens.end()));
    }
    writer.save(path);
}

DETENT_INLINE std::map<std::string, hessian> load_hessians(std::filesystem::path const& path) {
    std::string const suffix = ".tokens";
    io::safetensors_file const file(path);
    auto const tensor = [&](std::string const& name, io::dtype type) -> io::tensor_view const& {
        auto const& t = file.at(name);
        if (t.type != type || t.shape.size() != 1) {
            throw error(io::subject_of(path, name), "is " + std::string(io::name(t.type)) + " of rank " +
                                                        std::to_string(t.shape.size()) + "; expected " +
                                                        std::string(io::name(type)) + " of rank 1");
        }
        return t;
    };
    auto const read_tokens = [&](std::string const& name) {
        auto const& t = tensor(name, io::dtype::i64);
        std::int64_t tokens = 0;
        if (t.bytes.size() != sizeof tokens) {
            throw error(io::subject_of(path, name), "has " + std::to_string(t.size()) + " numbers; expected 1");
        }
        std::memcpy(&tokens, t.bytes.data(), sizeof tokens);
        if (tokens < 0) {
            throw error(io::subject_of(path, name), "is " + std::to_string(tokens) + ", no number of tokens");
        }
        return index_t{tokens};
    };
    auto const read_sum = [&](std::string const& name) {
        auto const& t = tensor(name, io::dtype::f64);
        auto const n = static_cast<index_t>((std::sqrt(8.0 * static_cast<double>(t.size()) + 1) - 1) / 2);
        if (n * (n + 1) / 2 != t.size()) {
            throw error(io::subject_of(path, name),
                        "has " + std::to_string(t.size()) + " numbers, which is n (n + 1) / 2 for no n");
        }
        basic_matrix<double> sum = basic_matrix<double>::Zero(n, n); // (in, in), upper
        std::uint8_t const* in = t.bytes.data();
        for (index_t row = 0; row < n; ++row) {
            std::size_t const length = static_cast<std::size_t>(n - row) * sizeof(double);
            std::memcpy(&sum(row, row), in, length);
            in += length;
            auto const numbers = sum.row(row).tail(n - row);
            if (!numbers.allFinite()) {
                throw error(io::subject_of(path, name),
                            "has a number in row " + std::to_string(row) + " of its triangle that is not finite");
            }
        }
        return sum;
    };

    std::map<std::string, hessian> hessians;
    for (auto const& name : file.names()) {
        bool const count = name.ends_with(suffix) && file.at(name).type == io::dtype::i64;
        if (!count) {
            auto sum = read_sum(name);
            hessians.emplace(name, hessian(std::move(sum), read_tokens(name + suffix)));
        } else if (std::string const owner = name.substr(0, name.size() - suffix.size()); !file.contains(owner)) {
            throw error(io::subject_of(path, owner), "is missing, though its number of tokens is there");
        }
    }
    return hessians;
}

} // namespace detent::inline DETENT_ABI

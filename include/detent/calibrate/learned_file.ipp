// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "detent/calibrate/learned_file.hpp"
#include "detent/core/eigen.hpp"
#include "detent/core/error.hpp"
#include "detent/io/safetensors.hpp"
#include "detent/model/learned_block.hpp"
#include "detent/model/weak_plan.hpp"

namespace detent::inline DETENT_ABI {

DETENT_INLINE void fingerprint::add(matrix_view m) {
    for (index_t row = 0; row < m.rows(); ++row) {
        add(std::span<float const>(m.row(row).data(), static_cast<std::size_t>(m.cols())));
    }
}

DETENT_INLINE void fingerprint::add(dense_block<float> const& b) {
    for (auto const* norm : {&b.attention_norm, &b.mlp_norm}) {
        add(norm->weight.transpose());
        add(norm->bias.transpose());
    }
    for (auto const& layer : b.linears) {
        add(layer.weight);
        add(layer.bias.transpose());
    }
}

DETENT_INLINE std::string fingerprint::text() const {
    std::array<char, 17> digits{};
    std::snprintf(digits.data(), digits.size(), "%016llx", static_cast<unsigned long long>(value_));
    return digits.data();
}

DETENT_INLINE std::vector<std::pair<std::string, std::span<float>>> named_parts(block_parameters<float>& p) {
    std::vector<std::pair<std::string, std::span<float>>> all;
    auto const add = [&](std::string name, auto& part) {
        if (part.size() > 0) {
            all.emplace_back(std::move(name), std::span(part.data(), static_cast<std::size_t>(part.size())));
        }
    };
    auto const parts = p.transform.parts();
    for (std::size_t i = 0; i < parts.size(); ++i) {
        add(std::string(p.transform.part_names[i]), *parts[i]);
    }
    for (linear_role const role : block_roles) {
        if (auto& clip = p.clips[static_cast<std::size_t>(role)]) {
            add(std::string(name_of(role)) + ".low", clip->low);
            add(std::string(name_of(role)) + ".high", clip->high);
        }
    }
    return all;
}

DETENT_INLINE void save(learned found, std::filesystem::path const& path, fingerprint const& of) {
    auto const bytes = []<class Scalar>(std::span<Scalar> numbers) {
        return std::span(reinterpret_cast<std::uint8_t const*>(numbers.data()), numbers.size_bytes());
    };
    io::safetensors_writer writer;
    for (auto const& [name, numbers] : named_parts(found.parameters)) {
        writer.add(name, io::dtype::f32, {std::ssize(numbers)}, bytes(numbers));
    }
    writer.add("losses", io::dtype::f64, {std::ssize(found.losses)}, bytes(std::span(found.losses)));
    writer.save(path, {{"fingerprint", of.text()}});
}

DETENT_INLINE learned load(std::filesystem::path const& path, block_parameters<float> first, fingerprint const& of) {
    io::safetensors_file const file(path);
    auto const kept = file.metadata().find("fingerprint");
    if (kept == file.metadata().end() || kept->second != of.text()) {
        throw error(path.string(),
                    "was learned from another model, text or quantizer; remove it, or keep what is learned elsewhere");
    }
    auto const read = [&]<class Scalar>(std::string const& name, io::dtype type, std::span<Scalar> numbers) {
        auto const& tensor = file.at(name);
        if (tensor.type != type || tensor.bytes.size() != numbers.size_bytes()) {
            throw error(io::subject_of(path, name), "has the wrong type or shape");
        }
        std::memcpy(numbers.data(), tensor.bytes.data(), tensor.bytes.size());
    };
    learned found{std::move(first), {}};
    for (auto const& [name, numbers] : named_parts(found.parameters)) {
        read(name, io::dtype::f32, numbers);
    }
    found.losses.resize(static_cast<std::size_t>(file.at("losses").size()));
    read("losses", io::dtype::f64, std::span(found.losses));
    return found;
}

} // namespace detent::inline DETENT_ABI

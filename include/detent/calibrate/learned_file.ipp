// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
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

DETENT_INLINE void fingerprint::add(std::optional<basic_norm_layer<float>> const& norm) {
    add_numbers(norm.has_value());
    if (norm) {
        add_numbers(norm->type, norm->eps, norm->width);
        add(norm->weight.transpose());
        add(norm->bias.transpose());
    }
}

DETENT_INLINE void fingerprint::add(nn::attention_form const& form) {
    add_numbers(form.mask, form.scale, form.window, form.soft_cap);
    add<float>(form.slopes);
    add<float>(form.sinks);
}

DETENT_INLINE void fingerprint::add(nn::rotary_law const& law) {
    add_numbers(law.kind, law.base, law.dimensions, law.interleaved, law.factor, law.attention_factor,
                law.max_positions, law.original_positions, law.low_freq_factor, law.high_freq_factor, law.beta_fast,
                law.beta_slow, law.mscale, law.mscale_all_dim, law.truncate, law.rotated);
    add<double>(law.short_factor);
    add<double>(law.long_factor);
}

DETENT_INLINE void fingerprint::add(dense_block<float> const& b) {
    for (auto const* norms : {&b.attention_norms, &b.mlp_norms}) {
        add(norms->input);
        add(norms->output);
        add(norms->sum);
    }
    add(b.query_norm);
    add(b.key_norm);
    add_numbers(b.heads.heads, b.heads.kv_heads, b.heads.head_dim, b.heads.probability_bits, b.gate_form.kind,
                b.gate_form.limit, b.gate_form.up_offset, b.parallel, b.residual, b.mlps.size());
    add(b.attention);
    if (b.rotary) {
        add(*b.rotary);
    }
    add_numbers(b.routing.experts_per_token, b.routing.score, b.routing.renormalized, b.routing.factor);
    add<float>(b.routing.correction);
    for (layer_place const place : b.places()) {
        add_numbers(place.role, place.expert);
        add(b.linear(place).weight);
        add(b.linear(place).bias.transpose());
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
    p.transform.for_each_part(add);
    bool const has_experts = !p.clips.empty() && p.clips.rbegin()->first.expert > 0;
    for (auto& [place, clip] : p.clips) {
        bool const numbered = has_experts && place.role >= linear_role::gate;
        std::string const name =
            std::string(name_of(place.role)) + (numbered ? "." + std::to_string(place.expert) : "");
        add(name + ".low", clip.low);
        add(name + ".high", clip.high);
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
        std::copy_n(tensor.bytes.data(), tensor.bytes.size(), reinterpret_cast<std::uint8_t*>(numbers.data()));
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

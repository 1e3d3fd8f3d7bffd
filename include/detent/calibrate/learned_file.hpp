// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "detent/core/eigen.hpp"
#include "detent/core/needs_exceptions.hpp"
#include "detent/model/learned_block.hpp"
#include "detent/model/norm_layer.hpp"
#include "detent/nn/attention.hpp"
#include "detent/nn/rotary_law.hpp"

namespace detent::inline DETENT_ABI {

/// What was learned of a block.
struct learned {
    block_parameters<float> parameters;
    std::vector<double> losses; ///< the mean of each epoch
};

/// A number that tells apart what was shown to it, as good as always (FNV-1a, taking eight bytes at a time).
class fingerprint {
public:
    template <class Scalar> void add(std::span<Scalar const> numbers) {
        auto const bytes = std::as_bytes(numbers);
        for (std::size_t i = 0; i < bytes.size(); i += sizeof(std::uint64_t)) {
            std::uint64_t word = 0;
            std::memcpy(&word, bytes.data() + i, std::min(sizeof word, bytes.size() - i));
            value_ = (value_ ^ word) * 0x100000001b3U;
            value_ ^= value_ >> 32; // high bits reach low ones too
        }
        value_ ^= bytes.size();
    }
    void add(matrix_view m);

    /// All that says what the block computes.
    void add(dense_block<float> const& b);

    /// 16 hexadecimal digits.
    std::string text() const;

private:
    /// Numbers of any type.
    template <class... Numbers> void add_numbers(Numbers... numbers) {
        double const all[]{static_cast<double>(numbers)...};
        add<double>(all);
    }
    void add(std::optional<basic_norm_layer<float>> const& norm);
    void add(nn::attention_form const& form);
    void add(nn::rotary_law const& law);

    std::uint64_t value_ = 0xcbf29ce484222325U;
};

/// The numbers that are learned and their names in a file.
std::vector<std::pair<std::string, std::span<float>>> named_parts(block_parameters<float>& p);

/// Writes what was learned, as safetensors; `of` tells from what. @throws error naming the file.
void save(learned found, std::filesystem::path const& path, fingerprint const& of);

/// Reads what was learned in place of `first`, which has its shape. @throws error naming the file where it is damaged
/// or was learned from something else.
learned load(std::filesystem::path const& path, block_parameters<float> first, fingerprint const& of);

} // namespace detent::inline DETENT_ABI

#if !defined(DETENT_COMPILED)
#include "detent/calibrate/learned_file.ipp" // IWYU pragma: export
#endif

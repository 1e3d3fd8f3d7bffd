// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "detent/core/needs_exceptions.hpp"
#include "detent/io/name_patterns.hpp"
#include "detent/io/quantization_settings.hpp"
#include "detent/io/stored_input.hpp"

// The settings of compressed-tensors: schemes, and which layers have which.

namespace detent::inline DETENT_ABI::io {

/// Who shares a scale.
enum class compressed_strategy { tensor, channel, group, tensor_group, block, token };

/// How weights or inputs are quantized.
struct compressed_numbers {
    int bits = 8;
    bool is_float = false;
    bool symmetric = true;
    compressed_strategy strategy = compressed_strategy::tensor;
    index_t group = 0;         ///< numbers in a group
    extents block = {};        ///< weights in a block
    bool reordered = false;    ///< groups follow activation order: there is a `weight_g_idx`
    bool dynamic = false;      ///< inputs: each token has scales of its own
    bool local_scales = false; ///< inputs: groups do, but their unit is the same for all tokens

    /// Reads one from its object. @throws error naming the field that is impossible or not supported.
    static compressed_numbers of(quantization_settings const& settings);
};

/// How layers are quantized, and which.
struct compressed_scheme {
    std::vector<std::string> targets;   ///< names of layers or of classes of layers
    std::vector<name_pattern> patterns; ///< of names of layers
    compressed_numbers weights;
    std::optional<compressed_numbers> inputs;
    std::string format; ///< such as `pack-quantized`
};

/// All schemes of a checkpoint.
class compressed_schemes {
public:
    /// @throws error naming a field that is impossible or not supported.
    explicit compressed_schemes(quantization_settings const& settings);

    /// The scheme of layer `name`: one that names it, else one of its class, which is taken for the right one. @throws
    /// error when there is none.
    compressed_scheme const& of(std::string const& name) const;

    /// Whether keys and values of attention are said to be quantized.
    bool quantizes_keys_and_values() const { return settings_.has("kv_cache_scheme"); }

private:
    compressed_scheme read(quantization_settings const& group, std::string const& format) const;

    quantization_settings settings_;
    std::vector<compressed_scheme> all_;
};

} // namespace detent::inline DETENT_ABI::io

#if !defined(DETENT_COMPILED)
#include "detent/io/compressed_scheme.ipp" // IWYU pragma: export
#endif

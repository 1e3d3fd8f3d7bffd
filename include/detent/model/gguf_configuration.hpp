// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "detent/core/index.hpp"
#include "detent/core/needs_exceptions.hpp"
#include "detent/io/gguf_metadata.hpp"
#include "detent/model/configuration.hpp"
#include "detent/model/gguf_architecture.hpp"

// What the metadata of GGUF files say of a model's sizes and switches.
namespace detent::inline DETENT_ABI {

/// Of how many positions a file may say that they are computed as the model does: where all layers see all, no more
/// than the narrowest window; without positions beyond those that dynamic scaling changes.
index_t gguf_positions(model_configuration const& c, gguf_architecture const& a);

/// Adds what a file says of a model's sizes and switches, each with the architecture before it.
void add_gguf_settings(io::gguf_metadata& metadata, model_configuration const& c, gguf_architecture const& a);

/// What the tensors of a file say of its model, beside its metadata.
struct gguf_contents {
    index_t vocabulary = 0;
    bool head = false;      ///< of its own
    bool two_norms = false; ///< for both of parallel branches
    bool attention_bias = false, mlp_bias = false;
    std::vector<double> divisors = {};                           ///< of rotary frequencies; none where they are 1
    std::vector<double> short_divisors = {}, long_divisors = {}; ///< of short and long contexts
};

/// What a file with these contents would have that held a model of configuration `c`.
gguf_contents contents_for(model_configuration const& c, gguf_architecture const& a);

/// The config.json that a file's metadata and contents amount to, as `parse_configuration` reads it. @throws error
/// naming the key that is missing or not understood.
nlohmann::json gguf_configuration(io::gguf_metadata const& metadata, gguf_contents const& contents);

/// Why no file that llama.cpp reads can say what a model computes; empty where one can. It is found by reading back
/// what would be written.
std::string gguf_obstacle(model_configuration const& c);

} // namespace detent::inline DETENT_ABI

#if !defined(DETENT_COMPILED)
#include "detent/model/gguf_configuration.ipp" // IWYU pragma: export
#endif

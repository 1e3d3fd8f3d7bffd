// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "detent/core/error.hpp"
#include "detent/core/index.hpp"
#include "detent/core/needs_exceptions.hpp"
#include "detent/nn/activation.hpp"
#include "detent/nn/attention.hpp"

namespace detent::inline DETENT_ABI {

/// The architectures a decoder can have.
enum class model_family {
    llama, ///< RMSNorm, rotary positions, grouped-query attention, SwiGLU: LLaMA, Mistral, Qwen2
    opt    ///< LayerNorm, learned positions, a two-layer feed-forward network
};

/// The sizes and switches of a decoder, under one name for every family.
struct model_configuration {
    model_family family = model_family::llama;
    index_t vocabulary = 0;
    index_t hidden = 0;       ///< features of a token between blocks
    index_t layers = 0;       ///< number of blocks
    index_t intermediate = 0; ///< features inside the feed-forward network
    nn::attention_heads heads;
    index_t max_positions = 0;
    nn::activation activation = nn::activation::silu; ///< of the gate where there is one
    float norm_eps = 1e-5F;
    double rope_theta = 10000.0; ///< llama only
    bool tied_embeddings = false;
    bool qkv_bias = false;
    bool output_bias = false; ///< of the projection after attention
    bool mlp_bias = false;
    std::vector<index_t> end_of_text; ///< ids after which generation stops; may be empty
};

/// Reads the fields of one `config.json`; a field that is null counts as missing. Every error names file and field.
class configuration_fields {
public:
    configuration_fields(nlohmann::json const& json, std::string file);

    /// The error `problem` about `field`.
    error wrong(std::string const& field, std::string const& problem) const;

    /// The value of `field`, or nothing where it is missing or null.
    nlohmann::json const* find(std::string const& field) const;

    /// A number of things from 1 to `most`, by default more than any model has and few enough that the product of two
    /// fits an `index_t`.
    index_t size(std::string const& field, std::optional<index_t> missing = {}, index_t most = index_t{1} << 24) const;

    /// A number above 0 that is a finite float.
    double positive(std::string const& field, double missing) const;

    bool flag(std::string const& field, bool missing) const;

    std::string text(std::string const& field, std::optional<std::string> missing = {}) const;

    /// Refuses a switch that this library does not implement unless it is off.
    void require(std::string const& field, bool supported, bool missing) const;

    /// Token ids in `field`: none, one, or a list.
    std::vector<index_t> token_ids(std::string const& field, index_t vocabulary) const;

private:
    nlohmann::json const& json_;
    std::string file_;
};

/// The activation that Hugging Face calls `name`, or nothing where a two-layer feed-forward network has no such one.
std::optional<nn::activation> find_activation(std::string const& name);

/// What `find_activation` finds, as errors list it.
inline constexpr char const* known_activations = "relu, gelu, gelu_new, gelu_fast and gelu_pytorch_tanh";

/// The base of rotary positions. Throws `error` where positions are scaled or partial.
double parse_rope_theta(configuration_fields const& fields, nlohmann::json const& json, std::string const& file);

/// Throws `error` where some layer would see fewer tokens than the longest sequence has.
void reject_sliding_window(configuration_fields const& fields, nlohmann::json const& json,
                           std::string const& model_type, index_t max_positions);

/// Interprets the fields of a Hugging Face `config.json` with `model_type` llama, mistral, qwen2 or opt. Missing
/// optional fields take the defaults of Hugging Face. Throws `error` naming `file` and the field that is wrong or asks
/// for something this library does not compute.
model_configuration parse_configuration(nlohmann::json const& json, std::string const& file);

/// Reads a Hugging Face `config.json`. Throws like `parse_configuration`.
model_configuration read_configuration(std::filesystem::path const& path);

} // namespace detent::inline DETENT_ABI

#if !defined(DETENT_COMPILED)
#include "detent/model/configuration.ipp" // IWYU pragma: export
#endif

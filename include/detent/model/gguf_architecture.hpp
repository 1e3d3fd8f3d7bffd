// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "detent/core/index.hpp"
#include "detent/core/needs_exceptions.hpp"
#include "detent/io/gguf_metadata.hpp"
#include "detent/model/configuration.hpp"

// What llama.cpp calls the families of decoders, their sizes and their tensors.
namespace detent::inline DETENT_ABI {

/// Which layers of an architecture have the window, as llama.cpp's code says.
enum class gguf_windows {
    none,         ///< all tokens see all before them
    every_second, ///< layers 0, 2, ...
    five_of_six   ///< all but layers 5, 11, ...
};

/// A number of metadata, which are mostly of 32 bits.
inline std::optional<io::gguf_value> gguf_count(index_t n) { return io::gguf_value(static_cast<std::uint32_t>(n)); }
inline std::optional<io::gguf_value> gguf_float(double x) { return io::gguf_value(static_cast<float>(x)); }

/// A key of GGUF's metadata and the field of config.json that says the same.
struct gguf_setting {
    std::string_view key;   ///< behind the architecture and a dot
    std::string_view field; ///< none where another key says it
    /// What a model says there; nothing where the key is left out.
    std::optional<io::gguf_value> (*of)(model_configuration const& c);
};

/// An architecture of llama.cpp, as far as it is not like all others.
struct gguf_architecture {
    std::string_view name; ///< `general.architecture`
    std::string_view type; ///< `model_type` of config.json
    /// Fields of config.json that are implied, as JSON. Where they are not those of a model, it is another model.
    std::string_view implied = "{}";
    std::string_view attention_bias = {}; ///< the field that says whether attention has biases, if there is one
    std::string_view mlp_bias = {};       ///< that of feed-forward networks
    std::vector<gguf_setting> more = {};  ///< beside what all architectures have
    gguf_windows windows = gguf_windows::none;
    bool neighbours = false;    ///< neighbouring numbers of a head are rotated, not those half a head apart
    bool joins_qkv = false;     ///< query, key and value are one tensor, stacked
    bool joins_gate_up = false; ///< gate and up are one tensor, stacked, in place of up
    bool divides = false;       ///< reads a tensor of divisors of rotary frequencies
    bool divides_long = false;  ///< reads two of them, for short and long contexts
    bool scales_rotary = false; ///< reads `rope.scaling`
    bool whole_pairs = true;    ///< YaRN's bounds are whole pairs (llama.cpp makes them so in any case)
    bool always_tied = false;   ///< has no output head
    index_t largest = 0;        ///< layers of the model whose scale of scores is that of an equal share of the features
    std::string_view mlp_norm = "ffn_norm";       ///< the norm of what feed-forward networks read
    std::string_view parallel_norm = "attn_norm"; ///< of what attention reads, beside a norm of the other branch
};

/// The architectures that are read and written. One may serve several families, of which the first is read.
std::vector<gguf_architecture> const& gguf_architectures();

/// That of a family; null if llama.cpp has none, or none that was tried.
gguf_architecture const* find_gguf_architecture(std::string_view model_type);

/// The family that a file is of: with experts, a family of mixtures. @throws error when there is none.
gguf_architecture const& gguf_architecture_of(io::gguf_metadata const& metadata);

/// Where a layer, norm or table of a model is in a GGUF file.
struct gguf_place {
    std::string tensor;  ///< without `.weight` or `.bias`
    index_t first = 0;   ///< its first row of all
    index_t expert = 0;  ///< number in the order of the first extent
    bool turned = false; ///< its rows are in the order of `rotary_rows`
};

/// The places of all parts of a decoder, by the names that they have in the model, whose tensors but the head's begin
/// with `prefix`.
std::map<std::string, gguf_place> gguf_places(model_configuration const& c, std::string const& prefix,
                                              gguf_architecture const& a);

/// The row of a Hugging Face checkpoint for each row of `heads` heads in a file whose architecture rotates neighbours:
/// of the `rotated` first numbers of a head, row 2 i + s is i + s rotated / 2.
std::vector<index_t> rotary_rows(index_t heads, index_t head_dim, index_t rotated);

} // namespace detent::inline DETENT_ABI

#if !defined(DETENT_COMPILED)
#include "detent/model/gguf_architecture.ipp" // IWYU pragma: export
#endif

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <filesystem>

#include <nlohmann/json_fwd.hpp>

#include "detent/core/needs_exceptions.hpp"
#include "detent/io/gguf_file.hpp"
#include "detent/model/decoder.hpp"

namespace detent::inline DETENT_ABI {

/// How the codes of a GGUF file become layers.
enum class gguf_weights {
    packed, ///< as they are, packed
    floats  ///< as the numbers they stand for, to be quantized again
};

/// The config.json that a GGUF file amounts to, as `parse_configuration` reads it. @throws error naming the file and
/// the key that is missing or not understood, or an architecture that is not supported.
nlohmann::json read_gguf_configuration(io::gguf_file const& file);

/// Reads the model of a GGUF file of one of `gguf_architectures`, of whatever types `io::ggml_types` reads. Layers have
/// the names that they have in a Hugging Face checkpoint of the family. The norms of Gemma have the numbers that they
/// multiply by. @throws error naming the file and the key or tensor that is missing, wrong or not supported, or a
/// tensor of the model that would be left out.
decoder load_gguf(std::filesystem::path const& path, gguf_weights weights = gguf_weights::packed);

} // namespace detent::inline DETENT_ABI

#if !defined(DETENT_COMPILED)
#include "detent/model/load_gguf.ipp" // IWYU pragma: export
#endif

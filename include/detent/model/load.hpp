// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "detent/core/needs_exceptions.hpp"
#include "detent/io/packed_tensors.hpp"
#include "detent/io/safetensors.hpp"
#include "detent/matrix/activation_quantizer.hpp"
#include "detent/model/configuration.hpp"
#include "detent/model/decoder.hpp"

namespace detent::inline DETENT_ABI {

/// The first of `prefixes` with which `tensor` is in the checkpoint. Where it is with none, the first of all: the error
/// about the missing tensor then names the usual one.
std::string find_prefix(io::checkpoint const& checkpoint, std::vector<std::string> const& prefixes,
                        std::string const& tensor);

/// What the attention of a block and its probabilities, which have no weights, are called in files.
std::string attention_name(block const& b, char const* last = "attention");
inline std::string probabilities_name(block const& b) { return attention_name(b, "probabilities"); }

/// How files say that probabilities are rounded to so many bits.
activation_quantizer probability_quantizer(int bits);

/// Reads `config.json` and the safetensors of a Hugging Face directory with float weights (F32, F16, BF16) or packed
/// ones, in any of `io::layouts`. @throws error naming the file and the field or tensor that is missing, wrong or
/// not supported.
decoder load_decoder(std::filesystem::path const& directory);

} // namespace detent::inline DETENT_ABI

#if !defined(DETENT_COMPILED)
#include "detent/model/load.ipp" // IWYU pragma: export
#endif

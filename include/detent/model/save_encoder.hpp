// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "detent/core/needs_exceptions.hpp"
#include "detent/io/packed_tensors.hpp"
#include "detent/model/encoder.hpp"
#include "detent/model/save.hpp"

namespace detent::inline DETENT_ABI {

/// The tensors of an encoder. @throws error where the embedding of patches is quantized, which no file can say.
model_tensors tensors_of(text_encoder const& model);
model_tensors tensors_of(image_encoder const& model);

/// Saves an encoder as `save_model` does; poolers and heads, which are not loaded, are copied.
save_plan save_encoder(text_encoder const& model, std::filesystem::path const& source,
                       std::filesystem::path const& directory, std::string const& description,
                       std::optional<io::packed_layout> wanted = {});

/// Saves an encoder as `save_model` does, which copies `preprocessor_config.json` too.
save_plan save_encoder(image_encoder const& model, std::filesystem::path const& source,
                       std::filesystem::path const& directory, std::string const& description,
                       std::optional<io::packed_layout> wanted = {});

} // namespace detent::inline DETENT_ABI

#if !defined(DETENT_COMPILED)
#include "detent/model/save_encoder.ipp" // IWYU pragma: export
#endif

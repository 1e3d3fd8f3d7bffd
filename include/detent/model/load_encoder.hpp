// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <filesystem>

#include "detent/core/needs_exceptions.hpp"
#include "detent/model/encoder.hpp"

namespace detent::inline DETENT_ABI {

/// Reads `config.json` and the safetensors of a Hugging Face encoder of text: float weights (F32, F16, BF16), or packed
/// ones in the blocks. Norms may be called `gamma` and `beta`, as in the first checkpoints. Poolers and heads are left
/// out. @throws error naming the file and the field or tensor that is missing, wrong or not supported.
text_encoder load_text_encoder(std::filesystem::path const& directory);

/// Reads the safetensors of a vision transformer and its `config.json` in one of the dialects of `parse_image_encoder`:
/// Hugging Face's, which says in `preprocessor_config.json`, if that is there, how to normalize pixels; or one whose
/// tensors are called cls_token, pos_embed, patch_embed.proj, transformer.layers (each a nn.TransformerEncoderLayer),
/// mlp_head.0 (LayerNorm) and mlp_head.1 (Linear). @throws error naming the file and the field or tensor that is
/// missing, wrong or not supported.
image_encoder load_image_encoder(std::filesystem::path const& directory);

} // namespace detent::inline DETENT_ABI

#if !defined(DETENT_COMPILED)
#include "detent/model/load_encoder.ipp" // IWYU pragma: export
#endif

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <span>
#include <string_view>

#include "detent/core/needs_exceptions.hpp"
#include "detent/model/configuration_fields.hpp"
#include "detent/model/encoder_configuration.hpp"
#include "detent/model/tensor_names.hpp"

namespace detent::inline DETENT_ABI {

/// What distinguishes a family of encoders: how its checkpoints call tensors, and what the fields of its config.json
/// mean. A new family that needs no new operation is one more entry in one of the tables below.
template <class Configuration> struct encoder_family {
    std::string_view type;   ///< `model_type`; empty for what is made of PyTorch's nn.TransformerEncoderLayer
    tensor_names (*names)(); ///< of a usual checkpoint; `read` may change them
    void (*read)(configuration_fields const& fields, Configuration& c);
};

/// All known families of encoders of text.
std::span<encoder_family<text_encoder_configuration> const> text_encoder_families();

/// All known families of encoders of images.
std::span<encoder_family<image_encoder_configuration> const> image_encoder_families();

} // namespace detent::inline DETENT_ABI

#if !defined(DETENT_COMPILED)
#include "detent/model/encoder_family.ipp" // IWYU pragma: export
#endif

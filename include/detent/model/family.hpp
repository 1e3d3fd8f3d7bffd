// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <span>
#include <string_view>

#include "detent/model/configuration.hpp"
#include "detent/model/configuration_fields.hpp"
#include "detent/model/tensor_names.hpp"

namespace detent::inline DETENT_ABI {

/// What distinguishes a family of decoders: how its checkpoints call tensors, and what the fields of its config.json
/// mean. A new family that needs no new operation is one more entry in `families()`.
struct decoder_family {
    std::string_view type;   ///< `model_type`
    tensor_names (*names)(); ///< of a usual checkpoint; `read` may change them
    void (*read)(configuration_fields const& fields, model_configuration& c); ///< all fields but `model_type`
};

/// All known families.
std::span<decoder_family const> families();

} // namespace detent::inline DETENT_ABI

#if !defined(DETENT_COMPILED)
#include "detent/model/family.ipp" // IWYU pragma: export
#endif

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include "detent/core/function_ref.hpp"
#include "detent/core/index.hpp"
#include "detent/model/configuration.hpp"
#include "detent/model/configuration_fields.hpp"

// What several families say in the same fields of config.json.
namespace detent::inline DETENT_ABI {

/// Reads what most families say in the same words or in one of few: sizes, heads, the activation, biases, tied
/// embeddings; and passes over what says nothing about the function. What `c` holds before are the defaults.
void read_common(configuration_fields const& fields, model_configuration& c);

/// Reads the activation of the feed-forward network; what `c` holds before is the default.
void read_activation(configuration_fields const& fields, model_configuration& c);

/// Passes over what only training, generation, or the program that loads a model wants to know.
void ignore_settings(configuration_fields const& fields);

/// Reads the rotary positions of all layers, as transformers of version 4 or 5 writes them: fields of the model, or an
/// object, which may hold one for each type of layer.
void read_rotaries(configuration_fields const& fields, model_configuration& c);

/// Reads which layers see a window of keys only: those that `layer_types` says, or else where `slides(layer)`.
void read_windows(configuration_fields const& fields, model_configuration& c, index_t window,
                  function_ref<bool(index_t)> slides);

} // namespace detent::inline DETENT_ABI

#if !defined(DETENT_COMPILED)
#include "detent/model/common_fields.ipp" // IWYU pragma: export
#endif

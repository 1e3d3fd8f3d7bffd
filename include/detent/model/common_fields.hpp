// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <string>
#include <string_view>

#include "detent/core/function_ref.hpp"
#include "detent/core/index.hpp"
#include "detent/model/configuration.hpp"
#include "detent/model/configuration_fields.hpp"
#include "detent/nn/activation.hpp"
#include "detent/nn/rotary_law.hpp"

// What several families say in the same fields of config.json.
namespace detent::inline DETENT_ABI {

/// What a family means by a field that is not there: the defaults of its class in Hugging Face transformers.
struct family_defaults {
    index_t kv_heads = 0; ///< 0 for as many as query heads, which null always means
    index_t head_dim = 0; ///< 0 for an equal share of the hidden features, which null always means
    index_t max_positions = 2048;
    double norm_eps = 1e-6;
    nn::activation activation = nn::activation::silu;
    std::string_view activation_field = {}; ///< what says it; empty for the words of most families
    bool tied = false;
    bool wide = false; ///< feed-forward networks are four times as wide as the hidden state where no field says it
    double rope_theta = 10000;
    double rotary_share = 0;        ///< of the features of a head, that are rotated; 0 for all and no choice
    index_t original_positions = 0; ///< `original_max_position_embeddings`, of the model; 0 for `max_positions`
    bool only_longrope = false;     ///< positions are scaled in one way only, which had other names (Phi-3)
    bool scaled_queries = false;    ///< objects of rotary positions say how queries are scaled too (Mistral 3)
};

/// Reads what most families say in the same words or in one of few: sizes, heads, the activation, tied embeddings; and
/// passes over what says nothing about the function.
void read_common(configuration_fields const& fields, model_configuration& c, family_defaults const& defaults);

/// Reads the rotary positions of all layers, as transformers of version 4 or 5 writes them: fields of the model, or an
/// object, which may hold one for each type of layer.
void read_rotaries(configuration_fields const& fields, model_configuration& c, family_defaults const& defaults);

/// Reads one object of rotary positions into `law`, which says what is known without it. `by_layer_type` where it is
/// one of several.
void read_rotary(configuration_fields const& rope, model_configuration const& c, family_defaults const& defaults,
                 nn::rotary_law& law, bool by_layer_type = false);

/// @throws error unless pairs of features can be rotated in every layer.
void expect_rotated_pairs(configuration_fields const& fields, model_configuration& c);

/// The activation that `field` names, or `missing`.
nn::activation read_activation(configuration_fields const& fields, std::string const& field, nn::activation missing);

/// Passes over what training, generation, or only the loading program wants to know.
void ignore_other_purposes(configuration_fields const& fields);

/// Reads which layers see a window of keys only: those that `layer_types` says, or else where `slides(layer)`.
void read_windows(configuration_fields const& fields, model_configuration& c, index_t window,
                  function_ref<bool(index_t)> slides);

/// Gives all layers the window, or none where it is 0; `layer_types` may only say the same.
void read_one_window(configuration_fields const& fields, model_configuration& c, index_t window);

/// Whether transformers of version 5 or later wrote the file. Where it means something else by a field than the version
/// that wrote the file did, a file is read as its writer meant it.
bool is_of_transformers_5(configuration_fields const& fields);

} // namespace detent::inline DETENT_ABI

#if !defined(DETENT_COMPILED)
#include "detent/model/common_fields.ipp" // IWYU pragma: export
#endif

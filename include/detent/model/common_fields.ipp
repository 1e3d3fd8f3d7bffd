// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <iterator>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "detent/core/error.hpp"
#include "detent/core/function_ref.hpp"
#include "detent/io/json.hpp"
#include "detent/model/common_fields.hpp"
#include "detent/model/configuration.hpp"
#include "detent/model/configuration_fields.hpp"
#include "detent/nn/activation.hpp"
#include "detent/nn/rotary_law.hpp"

namespace detent::inline DETENT_ABI {

/// The kind of rotary positions called `name`, or nothing.
DETENT_INLINE std::optional<nn::rotary_kind> find_rotary(std::string_view name) {
    using enum nn::rotary_kind;
    for (auto const& [known, kind] : {std::pair{"default", plain}, {"linear", linear}, {"dynamic", dynamic},
                                      {"llama3", llama3}, {"yarn", yarn}, {"longrope", longrope}, {"su", longrope}}) {
        if (name == known) {
            return kind;
        }
    }
    return {};
}

/// Reads one object of rotary positions into `law`, whose base and dimensions are known but may be said again.
DETENT_INLINE void read_rotary(configuration_fields const& rope, model_configuration const& c, nn::rotary_law& law) {
    std::string const type = rope.text(rope.either({"rope_type", "type"}), "default");
    rope.ignore({"rope_type", "type"});
    auto const kind = find_rotary(type);
    if (!kind) {
        throw rope.wrong(rope.either({"rope_type", "type"}), "is '" + io::printable(type) + "', which is not supported");
    }
    law.kind = *kind;
    law.base = rope.positive("rope_theta", law.base);
    if (auto const share = rope.positive("partial_rotary_factor")) {
        law.dimensions = static_cast<index_t>(static_cast<double>(c.heads.head_dim) * *share);
    }
    law.factor = rope.positive("factor", law.factor);
    law.low_freq_factor = rope.positive("low_freq_factor", law.low_freq_factor);
    law.high_freq_factor = rope.positive("high_freq_factor", law.high_freq_factor);
    law.original_positions = rope.size("original_max_position_embeddings", law.original_positions);
    law.beta_fast = rope.positive("beta_fast", 0.0);
    law.beta_slow = rope.positive("beta_slow", 0.0);
    law.mscale = rope.positive("mscale", 0.0);
    law.mscale_all_dim = rope.positive("mscale_all_dim", 0.0);
    law.attention_factor = rope.positive("attention_factor", 0.0);
    law.truncate = rope.flag("truncate", true);
    if (law.kind == nn::rotary_kind::longrope) {
        law.short_factor = rope.numbers("short_factor", law.dimensions / 2);
        law.long_factor = rope.numbers("long_factor", law.dimensions / 2);
    }
    try {
        nn::expect_rotary_law(law);
    } catch (error const& e) {
        throw error(rope.file(), e.what());
    }
    rope.expect_all_read();
}

DETENT_INLINE void read_rotaries(configuration_fields const& fields, model_configuration& c) {
    auto const types = fields.words("layer_types", std::ssize(c.layers));
    nn::rotary_law law;
    law.base = fields.positive(fields.either({"rope_theta", "rotary_emb_base"}), 10000.0);
    fields.ignore({"rope_theta", "rotary_emb_base"});
    double const share = fields.positive(fields.either({"partial_rotary_factor", "rotary_pct"}), 1.0);
    fields.ignore({"partial_rotary_factor", "rotary_pct"});
    law.dimensions = fields.size_or_none("rotary_dim",
                                         static_cast<index_t>(static_cast<double>(c.heads.head_dim) * share));
    law.max_positions = c.max_positions;
    law.original_positions = fields.size("original_max_position_embeddings", c.max_positions);
    std::string const name = fields.either({"rope_parameters", "rope_scaling"});
    fields.ignore({"rope_parameters", "rope_scaling"});
    auto const rope = fields.object(name);
    bool by_type = false;
    for (auto const* type : {"full_attention", "sliding_attention"}) {
        by_type = by_type || (rope && rope->find(type) != nullptr);
    }
    if (rope && !by_type) {
        read_rotary(*rope, c, law);
    }
    for (std::size_t i = 0; i < c.layers.size(); ++i) {
        nn::rotary_law here = law;
        if (by_type) {
            std::string const type = types.empty() ? "full_attention" : types[i];
            auto const of_type = rope->object(type);
            if (!of_type) {
                throw rope->wrong(type, "is missing");
            }
            read_rotary(*of_type, c, here);
        }
        if (here.dimensions % 2 != 0 || here.dimensions > c.heads.head_dim) {
            throw fields.wrong(fields.find("rotary_dim") != nullptr ? "rotary_dim" : "head_dim",
                               "gives rotary positions " + std::to_string(here.dimensions) +
                                   " of the " + std::to_string(c.heads.head_dim) +
                                   " features of a head; they need an even number of them");
        }
        c.layers[i].rotary = std::move(here);
    }
}

DETENT_INLINE void read_heads(configuration_fields const& fields, model_configuration& c) {
    std::string const name = fields.either({"num_attention_heads", "n_head", "n_heads"});
    c.heads.heads = fields.size(name);
    // A head without an explicit size is an equal share of the hidden features.
    bool const explicit_head = fields.find("head_dim") != nullptr;
    if (!explicit_head && c.hidden % c.heads.heads != 0) {
        throw fields.wrong(name, "is " + std::to_string(c.heads.heads) + ", which does not divide hidden_size " +
                                     std::to_string(c.hidden));
    }
    c.heads.head_dim =
        explicit_head ? fields.size("head_dim", {}, (index_t{1} << 24) / c.heads.heads) : c.hidden / c.heads.heads;
    c.heads.kv_heads = fields.size("num_key_value_heads", c.heads.heads);
    if (c.heads.heads % c.heads.kv_heads != 0) {
        throw fields.wrong("num_key_value_heads", "is " + std::to_string(c.heads.kv_heads) +
                                                      ", which does not divide " + name + " " +
                                                      std::to_string(c.heads.heads));
    }
    c.attention.scale = 1 / std::sqrt(static_cast<double>(c.heads.head_dim));
}

DETENT_INLINE void read_activation(configuration_fields const& fields, model_configuration& c) {
    std::string const name =
        fields.either({"hidden_activation", "hidden_act", "activation_function", "activation"});
    fields.ignore({"hidden_activation", "hidden_act", "activation_function", "activation"});
    if (fields.find(name) == nullptr) {
        return;
    }
    std::string const word = fields.text(name);
    auto const known = std::ranges::find(nn::activation_names, word, &nn::activation_name::name);
    if (known == std::end(nn::activation_names)) {
        throw fields.wrong(name, "is '" + io::printable(word) + "', which is not supported");
    }
    c.gate.kind = known->kind;
}

DETENT_INLINE void ignore_settings(configuration_fields const& fields) {
    fields.ignore({"model_type", "architectures", "auto_map", "torch_dtype", "dtype", "transformers_version",
                   "_name_or_path", "_attn_implementation", "attn_implementation", "use_cache", "initializer_range",
                   "initializer_factor", "init_std", "bos_token_id", "pad_token_id", "eos_token_id", "sep_token_id",
                   "cls_token_id", "mask_token_id", "decoder_start_token_id", "attention_dropout", "hidden_dropout",
                   "attn_pdrop", "embd_pdrop", "resid_pdrop", "emb_pdrop", "dropout", "activation_dropout", "layerdrop",
                   "classifier_dropout", "summary_type", "summary_use_proj", "summary_activation",
                   "summary_proj_to_labels", "summary_first_dropout", "task_specific_params", "pretraining_tp",
                   "output_router_logits", "router_aux_loss_coef", "router_jitter_noise", "quantization_config",
                   "id2label", "label2id", "num_labels", "problem_type", "finetuning_task", "use_flash_attn",
                   "gradient_checkpointing", "tokenizer_class", "unsloth_version", "unsloth_fixed", "is_decoder",
                   "return_dict", "chunk_size_feed_forward", "prefix", "language", "rope_theta_unused"});
}

DETENT_INLINE void read_windows(configuration_fields const& fields, model_configuration& c, index_t window,
                                function_ref<bool(index_t)> slides) {
    auto const types = fields.words("layer_types", std::ssize(c.layers));
    for (std::size_t i = 0; i < c.layers.size(); ++i) {
        if (!types.empty() && types[i] != "sliding_attention" && types[i] != "full_attention") {
            throw fields.wrong("layer_types", "holds '" + io::printable(types[i]) + "', which is not supported");
        }
        bool const here = types.empty() ? slides(static_cast<index_t>(i)) : types[i] == "sliding_attention";
        if (here && window == 0) {
            throw fields.wrong("sliding_window", "is missing, but some layers slide");
        }
        c.layers[i].window = here ? window : 0;
    }
}

DETENT_INLINE void read_common(configuration_fields const& fields, model_configuration& c) {
    c.vocabulary = fields.size("vocab_size");
    c.hidden = fields.size(fields.either({"hidden_size", "n_embd", "d_model"}));
    c.embedding_width = c.hidden;
    c.layers.resize(static_cast<std::size_t>(fields.size(fields.either({"num_hidden_layers", "n_layer", "n_layers"}))));
    c.intermediate = fields.size_or_none(
        fields.either({"intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size"}), 4 * c.hidden);
    c.max_positions = fields.size(
        fields.either({"max_position_embeddings", "n_positions", "max_seq_len", "seq_length"}), c.max_positions);
    read_heads(fields, c);
    read_activation(fields, c);
    c.norm_eps = static_cast<float>(fields.positive(
        fields.either({"rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon"}), static_cast<double>(c.norm_eps)));
    c.tied_embeddings = fields.flag("tie_word_embeddings", c.tied_embeddings);
    c.end_of_text = fields.token_ids("eos_token_id", c.vocabulary);
    ignore_settings(fields);
}

} // namespace detent::inline DETENT_ABI

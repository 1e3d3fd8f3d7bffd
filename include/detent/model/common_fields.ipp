// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdlib>
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
DETENT_INLINE std::optional<nn::rotary_kind> find_rotary(std::string_view name, family_defaults const& defaults) {
    using enum nn::rotary_kind;
    bool const old_name = defaults.only_longrope && (name == "su" || name == "yarn");
    for (auto const& [known, kind] : {std::pair{"default", plain},
                                      {"linear", linear},
                                      {"dynamic", dynamic},
                                      {"llama3", llama3},
                                      {"yarn", yarn},
                                      {"longrope", longrope},
                                      {"proportional", proportional}}) {
        if ((old_name ? "longrope" : name) == known && (!defaults.only_longrope || kind == plain || kind == longrope)) {
            return kind;
        }
    }
    return {};
}

/// Reads the numbers of YaRN; `mscale` and `mscale_all_dim` count for nothing where one of them is 0.
DETENT_INLINE void read_yarn(configuration_fields const& rope, nn::rotary_law& law, bool by_layer_type) {
    auto const or_none = [&](std::string_view field) {
        auto const* value = rope.find(field);
        return value != nullptr && *value == 0 ? 0 : rope.positive(field, 0.0);
    };
    law.beta_fast = rope.positive("beta_fast", 0.0);
    law.beta_slow = rope.positive("beta_slow", 0.0);
    law.mscale = or_none("mscale");
    law.mscale_all_dim = or_none("mscale_all_dim");
    law.truncate = rope.flag("truncate", true);
    if (by_layer_type && !law.truncate) {
        throw rope.wrong("truncate", "is false for one type of layer only, which is not supported");
    }
    rope.ignore({"finetuned"}); // how the weights came about
}

DETENT_INLINE void read_rotary(configuration_fields const& rope, model_configuration const& c,
                               family_defaults const& defaults, nn::rotary_law& law, bool by_layer_type) {
    std::string const name = rope.find("rope_type") != nullptr ? "rope_type" : "type";
    std::string const type = rope.text(name, "default");
    rope.ignore({"type"});
    auto const kind = find_rotary(type, defaults);
    if (!kind) {
        throw rope.wrong(name, "is '" + io::printable(type) + "', which is not supported");
    }
    law.kind = *kind;
    law.base = rope.positive("rope_theta", law.base);
    law.factor = rope.positive("factor", law.factor);
    law.attention_factor = rope.positive("attention_factor", 0.0);
    law.original_positions = rope.size("original_max_position_embeddings", law.original_positions);
    auto const share = rope.positive("partial_rotary_factor");
    auto const head_dim = static_cast<double>(c.heads.head_dim);
    if (law.kind == nn::rotary_kind::proportional) {
        law.dimensions = c.heads.head_dim;
        law.rotated = static_cast<index_t>(std::floor(share.value_or(1.0) * head_dim / 2));
    } else if (share && *share != 1 && defaults.rotary_share == 0) {
        throw rope.wrong("partial_rotary_factor", "is not 1, which models of this type do not compute");
    } else if (share) {
        law.dimensions = static_cast<index_t>(head_dim * *share);
    }
    if (law.kind == nn::rotary_kind::yarn) {
        read_yarn(rope, law, by_layer_type);
    }
    if (law.kind == nn::rotary_kind::llama3) {
        for (auto const& [field, number] :
             {std::pair{"low_freq_factor", &law.low_freq_factor}, {"high_freq_factor", &law.high_freq_factor}}) {
            auto const given = rope.positive(field);
            *number = given ? *given : throw rope.wrong(field, "is missing");
        }
    }
    if (law.kind == nn::rotary_kind::longrope) {
        law.short_factor = rope.numbers("short_factor", law.dimensions / 2);
        law.long_factor = rope.numbers("long_factor", law.dimensions / 2);
    }
    if (defaults.scaled_queries) {
        rope.ignore({"llama_4_scaling_beta", "max_position_embeddings"});
    }
    try {
        nn::expect_rotary_law(law);
    } catch (error const& e) {
        throw error(rope.file(), e.what());
    }
    rope.expect_all_read();
}

/// What fields of the model say about its rotary positions, before an object of them is read.
DETENT_INLINE nn::rotary_law read_plain_rotary(configuration_fields const& fields, model_configuration const& c,
                                               family_defaults const& defaults) {
    nn::rotary_law law;
    law.base = fields.positive(fields.either({"rope_theta", "rotary_emb_base"}), defaults.rope_theta);
    std::string const share = fields.either({"partial_rotary_factor", "rotary_pct"});
    double const rotated = fields.positive(share, defaults.rotary_share == 0 ? 1.0 : defaults.rotary_share);
    if (rotated > 1 || (rotated != 1 && defaults.rotary_share == 0)) {
        throw fields.wrong(share, "is not 1, which models of this type do not compute");
    }
    law.dimensions = static_cast<index_t>(static_cast<double>(c.heads.head_dim) * rotated);
    law.max_positions = c.max_positions;
    law.original_positions =
        fields.size("original_max_position_embeddings",
                    defaults.original_positions > 0 ? defaults.original_positions : c.max_positions);
    return law;
}

/// @throws error where an object of rotary positions contradicts a field of the model.
DETENT_INLINE void expect_same(configuration_fields const& fields, configuration_fields const& rope,
                               std::string_view field) {
    auto const* outside = fields.find(field);
    auto const* inside = rope.find(field);
    if (outside != nullptr && inside != nullptr && *outside != *inside) {
        throw rope.wrong(field, "is " + io::printable(inside->dump()) + ", but that of the model is " +
                                    io::printable(outside->dump()));
    }
}

DETENT_INLINE void expect_rotated_pairs(configuration_fields const& fields, model_configuration& c) {
    for (auto const& layer : c.layers) {
        if (layer.rotary && (layer.rotary->dimensions % 2 != 0 || layer.rotary->dimensions > c.heads.head_dim)) {
            throw fields.wrong(fields.has("rotary_dim") ? "rotary_dim" : "head_dim",
                               "gives rotary positions " + std::to_string(layer.rotary->dimensions) + " of the " +
                                   std::to_string(c.heads.head_dim) +
                                   " features of a head; they need an even number of them");
        }
        c.any_length = c.any_length || (layer.rotary && layer.rotary->kind == nn::rotary_kind::dynamic);
    }
}

DETENT_INLINE void read_rotaries(configuration_fields const& fields, model_configuration& c,
                                 family_defaults const& defaults) {
    nn::rotary_law law = read_plain_rotary(fields, c, defaults);
    auto const* const scaling = fields.find("rope_scaling"); // the older word goes first, where it says anything
    auto const newer = fields.object("rope_parameters");
    auto const rope = scaling != nullptr && !scaling->empty() ? fields.object("rope_scaling") : newer;
    if (rope && rope->text(rope->either({"rope_type", "type"}), "default") != "default") {
        expect_same(fields, *rope, "partial_rotary_factor");
        expect_same(fields, *rope, "original_max_position_embeddings");
    }
    bool by_type = false;
    for (auto const* type : {"full_attention", "sliding_attention"}) {
        by_type = by_type || (rope && rope->find(type) != nullptr);
    }
    auto const types = by_type ? fields.words("layer_types", std::ssize(c.layers)) : std::vector<std::string>{};
    if (rope && !by_type) {
        read_rotary(*rope, c, defaults, law);
    }
    for (std::size_t i = 0; i < c.layers.size(); ++i) {
        nn::rotary_law here = law;
        if (by_type) {
            std::string const type = types.empty() ? "full_attention" : types[i];
            auto const of_type = rope->object(type);
            read_rotary(of_type ? *of_type : throw rope->wrong(type, "is missing"), c, defaults, here, true);
        }
        c.layers[i].rotary = std::move(here);
    }
    expect_rotated_pairs(fields, c);
}

// A file of a few bytes can ask for any number of them, and what is known of a model without its weights has an entry
// for each. The largest models in use have some 130 layers, and heads of 512 features.
inline constexpr index_t most_layers = 4096;
inline constexpr index_t largest_head = 16384;

DETENT_INLINE void read_heads(configuration_fields const& fields, model_configuration& c,
                              family_defaults const& defaults) {
    std::string const name = fields.either({"num_attention_heads", "n_head", "n_heads", "num_heads"});
    c.heads.heads = fields.size(name);
    index_t const head_dim =
        fields.has("head_dim") ? fields.size("head_dim", 0, std::min(largest_head, (index_t{1} << 24) / c.heads.heads))
                               : defaults.head_dim;
    if (head_dim == 0 && c.hidden % c.heads.heads != 0) {
        throw fields.wrong(name, "is " + std::to_string(c.heads.heads) + ", which does not divide hidden_size " +
                                     std::to_string(c.hidden));
    }
    c.heads.head_dim = head_dim == 0 ? c.hidden / c.heads.heads : head_dim;
    bool const as_many = fields.has("num_key_value_heads") || defaults.kv_heads == 0;
    c.heads.kv_heads = fields.size("num_key_value_heads", as_many ? c.heads.heads : defaults.kv_heads);
    if (c.heads.heads % c.heads.kv_heads != 0) {
        throw fields.wrong("num_key_value_heads", "is " + std::to_string(c.heads.kv_heads) +
                                                      ", which does not divide " + name + " " +
                                                      std::to_string(c.heads.heads));
    }
    c.attention.scale = 1 / std::sqrt(static_cast<double>(c.heads.head_dim));
}

DETENT_INLINE nn::activation read_activation(configuration_fields const& fields, std::string const& field,
                                             nn::activation missing) {
    if (fields.find(field) == nullptr) {
        return missing;
    }
    std::string const word = fields.text(field);
    auto const known = std::ranges::find(nn::activation_names, word, &nn::activation_name::name);
    if (known == std::end(nn::activation_names)) {
        throw fields.wrong(field, "is '" + io::printable(word) + "', which is not supported");
    }
    return known->kind;
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

DETENT_INLINE void read_one_window(configuration_fields const& fields, model_configuration& c, index_t window) {
    std::string const expected = window > 0 ? "sliding_attention" : "full_attention";
    for (auto const& type : fields.words("layer_types", std::ssize(c.layers))) {
        if (type != expected) {
            throw fields.wrong("layer_types", "holds '" + io::printable(type) +
                                                  "', but models of this type have one window for all layers, or none");
        }
    }
    for (auto& layer : c.layers) {
        layer.window = window;
    }
}

DETENT_INLINE bool is_of_transformers_5(configuration_fields const& fields) {
    std::string const version = fields.text("transformers_version", "");
    return std::atoi(version.c_str()) >= 5;
}

/// Passes over what training, generation, or only the loading program wants to know.
DETENT_INLINE void ignore_other_purposes(configuration_fields const& fields) {
    // clang-format off
    // Who made the file, and how a program runs it.
    fields.ignore({"model_type", "architectures", "auto_map", "torch_dtype", "dtype", "transformers_version",
                   "_name_or_path", "name_or_path", "_commit_hash", "_attn_implementation", "attn_implementation",
                   "_attn_implementation_autoset", "use_flash_attn", "use_cache", "cache_implementation", "torchscript",
                   "return_dict", "output_attentions", "output_hidden_states", "tokenizer_class", "tokenizer_name",
                   "chunk_size_feed_forward", "is_decoder", "quantization_config", "unsloth_version", "unsloth_fixed"});
    // Training.
    fields.ignore({"initializer_range", "initializer_factor", "init_std", "attention_dropout", "hidden_dropout",
                   "attn_pdrop", "embd_pdrop", "resid_pdrop", "emb_pdrop", "dropout", "activation_dropout",
                   "resid_dropout", "embed_dropout", "residual_dropout", "embedding_dropout", "layerdrop",
                   "classifier_dropout", "attention_probs_dropout_prob", "hidden_dropout_prob",
                   "gradient_checkpointing", "output_router_logits", "router_aux_loss_coef", "router_jitter_noise",
                   "max_sequence_length", "model_max_length", "pretraining_tp"});
    // Other heads than that of a language model.
    fields.ignore({"summary_type", "summary_use_proj", "summary_activation", "summary_proj_to_labels",
                   "summary_first_dropout", "task_specific_params", "id2label", "label2id", "num_labels", "_num_labels",
                   "problem_type", "finetuning_task", "n_special", "predict_special_tokens"});
    // Generation.
    fields.ignore({"bos_token_id", "pad_token_id", "eos_token_id", "sep_token_id", "cls_token_id", "mask_token_id",
                   "unk_token_id", "decoder_start_token_id", "forced_bos_token_id", "forced_eos_token_id",
                   "bad_words_ids", "suppress_tokens", "begin_suppress_tokens", "prefix", "language", "max_length",
                   "min_length", "max_new_tokens", "do_sample", "early_stopping", "num_beams", "num_beam_groups",
                   "diversity_penalty", "temperature", "top_k", "top_p", "typical_p", "repetition_penalty",
                   "length_penalty", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "num_return_sequences"});
    // clang-format on
}

DETENT_INLINE void read_common(configuration_fields const& fields, model_configuration& c,
                               family_defaults const& defaults) {
    c.vocabulary = fields.size("vocab_size");
    c.hidden = fields.size(fields.either({"hidden_size", "n_embd", "d_model", "n_embed"}));
    c.embedding_width = c.hidden;
    c.layers.resize(static_cast<std::size_t>(
        fields.size(fields.either({"num_hidden_layers", "n_layer", "n_layers", "num_layers"}), {}, most_layers)));
    c.intermediate = fields.size(fields.either({"intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size"}),
                                 defaults.wide ? std::optional(4 * c.hidden) : std::nullopt);
    c.max_positions =
        fields.size(fields.either({"max_position_embeddings", "n_positions", "max_seq_len"}), defaults.max_positions);
    read_heads(fields, c, defaults);
    c.gate.kind = read_activation(fields,
                                  defaults.activation_field.empty()
                                      ? fields.either({"hidden_act", "activation_function", "activation"})
                                      : std::string(defaults.activation_field),
                                  defaults.activation);
    c.norm_eps = static_cast<float>(fields.positive(
        fields.either({"rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_epsilon", "norm_eps"}),
        defaults.norm_eps));
    c.tied_embeddings = fields.flag("tie_word_embeddings", defaults.tied);
    auto const begin = fields.token_ids("bos_token_id", c.vocabulary);
    c.begin_of_text = begin.empty() ? std::nullopt : std::optional(begin.front());
    c.end_of_text = fields.token_ids("eos_token_id", c.vocabulary);
    ignore_other_purposes(fields);
}

} // namespace detent::inline DETENT_ABI

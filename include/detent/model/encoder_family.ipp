// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <array>
#include <cmath>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "detent/core/index.hpp"
#include "detent/io/json.hpp"
#include "detent/model/common_fields.hpp"
#include "detent/model/configuration_fields.hpp"
#include "detent/model/encoder_configuration.hpp"
#include "detent/model/encoder_family.hpp"
#include "detent/model/tensor_names.hpp"
#include "detent/nn/activation.hpp"
#include "detent/nn/attention.hpp"
#include "detent/nn/norm.hpp"

// The families of encoders. What is called "default" here are the defaults of their classes in Hugging Face
// transformers, which config.json leaves out.
namespace detent::inline DETENT_ABI {

// ---- What all encoders have in common ------------------------------------------------------------------------------

/// How an encoder calls its sizes.
struct encoder_sizes {
    std::string_view hidden = "hidden_size", layers = "num_hidden_layers", heads = "num_attention_heads";
};

/// LayerNorm, biases everywhere, attention that sees all tokens, a feed-forward network without a gate.
DETENT_INLINE void read_encoder(configuration_fields const& fields, model_configuration& c, encoder_sizes const& sizes,
                                nn::activation activation, double eps) {
    c.hidden = fields.size(sizes.hidden);
    c.layers.resize(static_cast<std::size_t>(fields.size(sizes.layers)));
    index_t const heads = fields.size(sizes.heads);
    if (c.hidden % heads != 0) {
        throw fields.wrong(sizes.heads, "is " + std::to_string(heads) + ", which does not divide " +
                                            std::string(sizes.hidden) + " " + std::to_string(c.hidden));
    }
    c.heads = {.heads = heads, .kv_heads = heads, .head_dim = c.hidden / heads};
    c.attention.mask = nn::attention_mask::bidirectional;
    c.attention.scale = 1 / std::sqrt(static_cast<double>(c.heads.head_dim));
    c.norm = nn::norm_kind::layer;
    c.norm_bias = true;
    c.norm_eps = static_cast<float>(eps);
    c.gated = false;
    c.gate.kind = read_activation(fields, fields.either({"hidden_act", "activation"}), activation);
    c.qkv_bias = c.output_bias = c.mlp_bias = true;
    ignore_other_purposes(fields);
    fields.ignore({"attention_probs_dropout_prob", "hidden_dropout_prob", "tie_word_embeddings", "tie_weights_",
                   "output_past", "is_encoder_decoder", "pooler_act", "pooler_output_size"});
}

/// Norms of the hidden state behind each branch, as the first encoders have them.
DETENT_INLINE branch_norms norms_after() { return {.input = false, .output = false, .sum = true}; }

// ---- Encoders of text ----------------------------------------------------------------------------------------------

DETENT_INLINE void read_bert(configuration_fields const& fields, text_encoder_configuration& c) {
    read_encoder(fields, c, {}, nn::activation::gelu, fields.positive("layer_norm_eps", 1e-12));
    c.norms = norms_after();
    c.intermediate = fields.size("intermediate_size");
    c.vocabulary = fields.size("vocab_size");
    c.embedding_width = c.hidden;
    c.max_positions = fields.size("max_position_embeddings", 512);
    c.token_types = fields.size("type_vocab_size", 2);
    fields.require("is_decoder", false, false);
    fields.require("add_cross_attention", false, false);
    if (auto const positions = fields.text("position_embedding_type", "absolute"); positions != "absolute") {
        throw fields.wrong("position_embedding_type",
                           "is '" + io::printable(positions) + "'; only 'absolute' is supported");
    }
    // What stands behind the hidden states, which is not computed.
    fields.ignore({"directionality", "pooler_fc_size", "pooler_num_attention_heads", "pooler_num_fc_layers",
                   "pooler_size_per_head", "pooler_type", "summary_last_dropout"});
}

/// Positions are counted from behind the row of the token that pads, and only of the other tokens.
DETENT_INLINE void read_roberta(configuration_fields const& fields, text_encoder_configuration& c) {
    read_bert(fields, c);
    auto const ids = fields.token_ids("pad_token_id", c.vocabulary);
    if (fields.has("pad_token_id") && ids.empty()) {
        throw fields.wrong("pad_token_id", "is no token of the vocabulary, but positions are counted from it");
    }
    c.padding = ids.empty() ? 1 : ids.front();
    c.position_offset = *c.padding + 1;
    if (c.position_offset >= c.max_positions) {
        throw fields.wrong("pad_token_id", "is " + std::to_string(*c.padding) + ", which leaves none of the " +
                                               std::to_string(c.max_positions) + " positions");
    }
    c.max_positions -= c.position_offset;
}

DETENT_INLINE void read_electra(configuration_fields const& fields, text_encoder_configuration& c) {
    read_bert(fields, c);
    c.embedding_width = fields.size("embedding_size", 128);
}

DETENT_INLINE void read_distilbert(configuration_fields const& fields, text_encoder_configuration& c) {
    read_encoder(fields, c, {"dim", "n_layers", "n_heads"}, nn::activation::gelu, 1e-12);
    c.norms = norms_after();
    c.intermediate = fields.size("hidden_dim");
    c.vocabulary = fields.size("vocab_size");
    c.embedding_width = c.hidden;
    c.max_positions = fields.size("max_position_embeddings", 512);
    // Sines are what the table of positions was made of; it is in the checkpoint either way.
    fields.ignore({"sinusoidal_pos_embds", "qa_dropout", "seq_classif_dropout"});
}

/// BERT's names with these prefixes.
DETENT_INLINE tensor_names names_like_bert(std::vector<std::string> prefixes) {
    return {.prefixes = std::move(prefixes),
            .embeddings = "embeddings.word_embeddings",
            .positions = "embeddings.position_embeddings",
            .embedding_norm = "embeddings.LayerNorm",
            .project_in = "embeddings_project",
            .blocks = "encoder.layer.",
            .attention_norm = "attention.output.LayerNorm",
            .mlp_norm = "output.LayerNorm",
            .query = "attention.self.query",
            .key = "attention.self.key",
            .value = "attention.self.value",
            .output = "attention.output.dense",
            .up = "intermediate.dense",
            .down = "output.dense"};
}

DETENT_INLINE tensor_names bert_names() { return names_like_bert({"bert.", ""}); }
DETENT_INLINE tensor_names roberta_names() { return names_like_bert({"roberta.", ""}); }
DETENT_INLINE tensor_names electra_names() { return names_like_bert({"electra.", ""}); }

DETENT_INLINE tensor_names distilbert_names() {
    tensor_names n = names_like_bert({"distilbert.", ""});
    n.blocks = "transformer.layer.";
    n.attention_norm = "sa_layer_norm";
    n.mlp_norm = "output_layer_norm";
    n.query = "attention.q_lin";
    n.key = "attention.k_lin";
    n.value = "attention.v_lin";
    n.output = "attention.out_lin";
    n.up = "ffn.lin1";
    n.down = "ffn.lin2";
    return n;
}

DETENT_INLINE std::span<encoder_family<text_encoder_configuration> const> text_encoder_families() {
    static constexpr std::array<encoder_family<text_encoder_configuration>, 6> table{{
        {"bert", bert_names, read_bert},
        {"roberta", roberta_names, read_roberta},
        {"xlm-roberta", roberta_names, read_roberta},
        {"camembert", roberta_names, read_roberta},
        {"distilbert", distilbert_names, read_distilbert},
        {"electra", electra_names, read_electra},
    }};
    return table;
}

// ---- Encoders of images --------------------------------------------------------------------------------------------

inline constexpr index_t largest_image = index_t{1} << 16; ///< in pixels; the numbers of a patch must fit an index_t

/// What the first of `architectures` is; empty where the field is missing.
DETENT_INLINE std::string architecture_of(configuration_fields const& fields) {
    auto const* list = fields.find("architectures");
    return list != nullptr && list->is_array() && !list->empty() && list->front().is_string()
               ? list->front().get<std::string>()
               : "";
}

/// Reads whether images are put into classes, as `readout` says, and into how many.
DETENT_INLINE void read_classes(configuration_fields const& fields, image_encoder_configuration& c,
                                image_readout readout) {
    auto const architecture = architecture_of(fields);
    c.readout = architecture.empty() || architecture.find("ForImageClassification") != std::string::npos
                    ? readout
                    : image_readout::none;
    auto const* labels = fields.find("id2label");
    if (labels != nullptr && !labels->is_object()) {
        throw fields.wrong("id2label", "is not a JSON object");
    }
    if (labels != nullptr && labels->empty()) {
        throw fields.wrong("id2label", "is {}; expected a name for each class");
    }
    c.classes = labels != nullptr ? static_cast<index_t>(labels->size()) : fields.size("num_labels", 2);
}

/// What Hugging Face's vision transformers say in the same words.
DETENT_INLINE void read_vision(configuration_fields const& fields, image_encoder_configuration& c, double eps,
                               index_t patch_size) {
    read_encoder(fields, c, {}, nn::activation::gelu, fields.positive("layer_norm_eps", eps));
    c.qkv_bias = fields.flag("qkv_bias", true);
    c.image_size = fields.size("image_size", 224, largest_image);
    c.patch_size = fields.size("patch_size", patch_size, largest_image);
    c.channels = fields.size("num_channels", 3);
    fields.ignore({"encoder_stride"}); // of a decoder of masked images
}

DETENT_INLINE void read_vit(configuration_fields const& fields, image_encoder_configuration& c) {
    read_vision(fields, c, 1e-12, 16);
    c.intermediate = fields.size("intermediate_size");
    read_classes(fields, c, image_readout::class_token);
}

DETENT_INLINE void read_deit(configuration_fields const& fields, image_encoder_configuration& c) {
    read_vit(fields, c);
    c.extra_tokens = 1;
    c.extra_positions = true;
    c.extra_tokens_name = "embeddings.distillation_token";
    if (architecture_of(fields).ends_with("WithTeacher")) {
        c.readout = image_readout::two_tokens;
        c.names.head = "cls_classifier";
        c.second_head = "distillation_classifier";
    }
}

DETENT_INLINE void read_dinov2(configuration_fields const& fields, image_encoder_configuration& c) {
    read_vision(fields, c, 1e-6, 14);
    double const ratio = fields.positive("mlp_ratio", 4.0);
    c.intermediate = static_cast<index_t>(static_cast<double>(c.hidden) * ratio);
    if (fields.flag("use_swiglu_ffn", false)) {
        // Two thirds as many features as without a gate, rounded up to a multiple of 8.
        c.intermediate = (static_cast<index_t>(static_cast<double>(c.intermediate) * 2 / 3) + 7) / 8 * 8;
        c.gated = true;
        c.gate.kind = nn::activation::silu;
        c.names.gate_up = "mlp.weights_in";
        c.names.down = "mlp.weights_out";
    }
    c.norms.output = c.norms.scale = true;
    read_classes(fields, c, image_readout::class_and_patches);
    // Initial values, training, and what a backbone hands on.
    fields.ignore({"layerscale_value", "drop_path_rate", "use_mask_token", "apply_layernorm", "reshape_hidden_states",
                   "out_features", "out_indices", "stage_names"});
}

DETENT_INLINE void read_dinov2_with_registers(configuration_fields const& fields, image_encoder_configuration& c) {
    read_dinov2(fields, c);
    c.extra_tokens = fields.size_or_none("num_register_tokens", 4);
    c.extra_tokens_name = "embeddings.register_tokens";
}

/// PyTorch's nn.TransformerEncoderLayer with the fields of `parse_image_encoder`'s second dialect.
DETENT_INLINE void read_torch(configuration_fields const& fields, image_encoder_configuration& c) {
    read_encoder(fields, c, {"embed_dim", "depth", "num_heads"}, nn::activation::relu,
                 fields.positive("layer_norm_eps", 1e-5));
    c.intermediate = fields.size("mlp_dim");
    if (!fields.flag("norm_first", false)) {
        c.norms = norms_after();
    }
    c.image_size = fields.size("image_size", {}, largest_image);
    c.patch_size = fields.size("patch_size", {}, largest_image);
    c.channels = fields.size("in_channels");
    c.classes = fields.size("num_classes");
    c.pixel_mean = parse_channels(fields, "pixel_mean", c.channels, false);
    c.pixel_std = parse_channels(fields, "pixel_std", c.channels, true);
    c.class_token_name = "cls_token";
    fields.ignore({"arch", "readout", "labels"}); // said to people
}

/// ViT's names with the prefix of a family.
DETENT_INLINE tensor_names names_like_vit(std::string const& prefix) {
    return {.prefixes = {prefix, ""},
            .embeddings = "embeddings.patch_embeddings.projection",
            .positions = "embeddings.position_embeddings",
            .blocks = "encoder.layer.",
            .final_norm = "layernorm",
            .head = "classifier",
            .attention_norm = "layernorm_before",
            .mlp_norm = "layernorm_after",
            .query = "attention.attention.query",
            .key = "attention.attention.key",
            .value = "attention.attention.value",
            .output = "attention.output.dense",
            .up = "intermediate.dense",
            .down = "output.dense"};
}

DETENT_INLINE tensor_names vit_names() { return names_like_vit("vit."); }
DETENT_INLINE tensor_names deit_names() { return names_like_vit("deit."); }

DETENT_INLINE tensor_names names_like_dinov2(std::string const& prefix) {
    tensor_names n = names_like_vit(prefix);
    n.attention_norm = "norm1";
    n.attention_output_norm = "layer_scale1";
    n.mlp_norm = "norm2";
    n.mlp_output_norm = "layer_scale2";
    n.up = "mlp.fc1";
    n.down = "mlp.fc2";
    return n;
}

DETENT_INLINE tensor_names dinov2_names() { return names_like_dinov2("dinov2."); }
DETENT_INLINE tensor_names dinov2_with_registers_names() { return names_like_dinov2("dinov2_with_registers."); }

DETENT_INLINE tensor_names torch_names() {
    return {.prefixes = {""},
            .embeddings = "patch_embed.proj",
            .positions = "pos_embed",
            .blocks = "transformer.layers.",
            .final_norm = "mlp_head.0",
            .head = "mlp_head.1",
            .attention_norm = "norm1",
            .mlp_norm = "norm2",
            .qkv = "self_attn.in_proj",
            .qkv_dot = "_",
            .output = "self_attn.out_proj",
            .up = "linear1",
            .down = "linear2"};
}

DETENT_INLINE std::span<encoder_family<image_encoder_configuration> const> image_encoder_families() {
    static constexpr std::array<encoder_family<image_encoder_configuration>, 5> table{{
        {"vit", vit_names, read_vit},
        {"deit", deit_names, read_deit},
        {"dinov2", dinov2_names, read_dinov2},
        {"dinov2_with_registers", dinov2_with_registers_names, read_dinov2_with_registers},
        {"", torch_names, read_torch},
    }};
    return table;
}

} // namespace detent::inline DETENT_ABI

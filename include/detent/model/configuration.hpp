// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "detent/core/index.hpp"
#include "detent/core/needs_exceptions.hpp"
#include "detent/model/configuration_fields.hpp"
#include "detent/model/tensor_names.hpp"
#include "detent/nn/activation.hpp"
#include "detent/nn/attention.hpp"
#include "detent/nn/norm.hpp"
#include "detent/nn/rotary_law.hpp"
#include "detent/nn/router.hpp"

namespace detent::inline DETENT_ABI {

/// Which norms a branch of a block has, attention's or the feed-forward network's.
struct branch_norms {
    bool input = true;   ///< of what the branch reads
    bool output = false; ///< of what it makes, before that is added (OLMo 2, Gemma 2)
    bool sum = false;    ///< of what is there when it has been added, norm(x + branch), as BERT and the first OPT
    bool scale = false;  ///< whether that of `output` only multiplies by its weight (DINOv2)
};

/// What norms of queries and keys take together: the features of each head, with weights that all heads share or that
/// each has of its own, or the features of all heads.
enum class head_norm_weights { shared, each, all_heads };

/// What distinguishes one block of a model from the others.
struct layer_configuration {
    index_t window = 0;                   ///< the newest keys that a query sees; 0 for all
    std::optional<nn::rotary_law> rotary; ///< none where positions are not rotated
    bool experts = false;                 ///< whether the feed-forward network is one of experts
    double score_divisor = 1;             ///< of the products of queries and keys, besides the model's scale
};

/// What a network of experts is made of.
struct expert_configuration {
    index_t count = 0;
    index_t intermediate = 0;        ///< features inside each
    index_t shared_intermediate = 0; ///< of the one that every token passes too; 0 where there is none
    bool shared_gate = false;        ///< whether what that makes is multiplied by a sigmoid of its own
    bool router_bias = false;
    bool bias = false; ///< of their linear layers
    nn::router_form routing = {};
};

/// The sizes and switches of a model, under one name for every family.
struct model_configuration {
    std::string type = {}; ///< `model_type` in config.json
    index_t vocabulary = 0;
    index_t hidden = 0;          ///< features of a token between blocks
    index_t embedding_width = 0; ///< features of a row of the embeddings, where projections make `hidden` of them
    index_t intermediate = 0;    ///< features inside the feed-forward network
    index_t max_positions = 0;
    bool any_length = false; ///< whether sequences may be longer than `max_positions` (ALiBi, dynamic rotary positions)
    nn::attention_heads heads = {};
    std::vector<layer_configuration> layers = {};

    nn::norm_kind norm = nn::norm_kind::rms;
    float norm_eps = 1e-5F;
    bool norm_weights = true; ///< whether norms multiply by numbers of their own
    bool norm_bias = false;
    float norm_offset = 0;    ///< added to the weights that files have (Gemma: 1)
    branch_norms norms = {};  ///< of both branches
    bool parallel = false;    ///< both branches read the hidden state before the block
    bool shared_norm = false; ///< parallel branches read what one norm makes
    bool embedding_norm = false;
    bool final_norm = true;
    std::optional<nn::norm_kind> query_key_norm = {};        ///< of queries and keys, before they are rotated
    head_norm_weights head_norm = head_norm_weights::shared; ///< of that

    nn::attention_form attention = {}; ///< but for windows, which layers have
    nn::gate_form gate = {};           ///< and the activation where there is no gate
    bool gated = true;                 ///< down(act(gate(x)) * up(x)), not down(act(up(x)))
    std::optional<expert_configuration> experts = {};

    bool learned_positions = false;
    index_t position_offset = 0; ///< rows of the table of positions before the first one's
    double embedding_multiplier = 1;
    double residual_multiplier = 1; ///< of what each branch makes
    double logit_multiplier = 1;
    double logit_cap = 0; ///< logits l become c tanh(l / c); 0 for none

    bool tied_embeddings = false;
    bool head_bias = false;
    bool qkv_bias = false;
    bool output_bias = false; ///< of the projection after attention
    bool mlp_bias = false;

    tensor_names names = {};
    std::optional<index_t> begin_of_text = {}; ///< the id before a text, where the model has one
    std::vector<index_t> end_of_text = {};     ///< ids after which generation stops; may be empty
};

/// Interprets the fields of a Hugging Face `config.json` of any family of `decoder_families()`. Missing optional fields
/// take the defaults of Hugging Face. @throws error naming `file` and the field that is wrong, asks for something this
/// library does not compute, or is not known and may change what the model computes.
model_configuration parse_configuration(nlohmann::json const& json, std::string const& file);

/// Reads a Hugging Face `config.json`, and further ids after which generation stops from a `generation_config.json`
/// beside it. Throws like `parse_configuration`.
model_configuration read_configuration(std::filesystem::path const& path);

/// The `model_type`s of decoders that are known.
std::vector<std::string> decoder_families();

} // namespace detent::inline DETENT_ABI

#if !defined(DETENT_COMPILED)
#include "detent/model/configuration.ipp" // IWYU pragma: export
#endif

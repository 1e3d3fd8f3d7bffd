// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "detent/core/error.hpp"
#include "detent/io/gguf_metadata.hpp"
#include "detent/io/json.hpp"
#include "detent/model/gguf_architecture.hpp"

namespace detent::inline DETENT_ABI {

/// What mixtures say of their experts.
inline std::vector<gguf_setting> gguf_expert_settings() {
    using c = model_configuration const&;
    return {{"expert_count", "num_experts", [](c m) { return gguf_count(m.experts->count); }},
            {"expert_used_count", "num_experts_per_tok",
             [](c m) { return gguf_count(m.experts->routing.experts_per_token); }}};
}

inline std::vector<gguf_setting> gguf_settings_with(std::vector<gguf_setting> some, std::vector<gguf_setting> others) {
    some.insert(some.end(), others.begin(), others.end());
    return some;
}

/// The width of experts, which is that of the networks of other layers where no `field` says it.
inline gguf_setting gguf_expert_width(std::string_view field) {
    return {"expert_feed_forward_length", field,
            [](model_configuration const& c) { return gguf_count(c.experts->intermediate); }};
}

inline gguf_setting gguf_parallel_setting() {
    return {"use_parallel_residual", "use_parallel_residual",
            [](model_configuration const& c) { return std::optional<io::gguf_value>(c.parallel); }};
}

inline std::vector<gguf_setting> gguf_granite_settings() {
    using c = model_configuration const&;
    return {{"attention.scale", "attention_multiplier", [](c m) { return gguf_float(m.attention.scale); }},
            {"embedding_scale", "embedding_multiplier", [](c m) { return gguf_float(m.embedding_multiplier); }},
            {"residual_scale", "residual_multiplier", [](c m) { return gguf_float(m.residual_multiplier); }},
            {"logit_scale", "logits_scaling", [](c m) { return gguf_float(1 / m.logit_multiplier); }}};
}

inline std::optional<io::gguf_value> gguf_cap(double cap) { return cap > 0 ? gguf_float(cap) : std::nullopt; }

inline std::vector<gguf_setting> gguf_cap_settings() {
    using c = model_configuration const&;
    return {{"attn_logit_softcapping", "attn_logit_softcapping", [](c m) { return gguf_cap(m.attention.soft_cap); }},
            {"final_logit_softcapping", "final_logit_softcapping", [](c m) { return gguf_cap(m.logit_cap); }}};
}

/// LLaMA and what follows it closely.
inline std::vector<gguf_architecture> gguf_architectures_like_llama() {
    using windows = gguf_windows;
    return {
        {.name = "llama",
         .type = "llama",
         .attention_bias = "attention_bias",
         .mlp_bias = "mlp_bias",
         .neighbours = true,
         .divides = true,
         .scales_rotary = true},
        {.name = "llama", .type = "mistral", .neighbours = true, .divides = true, .scales_rotary = true},
        {.name = "llama",
         .type = "mixtral",
         .more = gguf_expert_settings(),
         .neighbours = true,
         .divides = true,
         .scales_rotary = true},
        {.name = "qwen2", .type = "qwen2", .scales_rotary = true},
        {.name = "qwen3", .type = "qwen3", .attention_bias = "attention_bias", .scales_rotary = true},
        {.name = "qwen3moe",
         .type = "qwen3_moe",
         .implied = R"({"norm_topk_prob": true})",
         .attention_bias = "attention_bias",
         .more = gguf_settings_with(gguf_expert_settings(), {gguf_expert_width("moe_intermediate_size")}),
         .scales_rotary = true},
        {.name = "olmo2", .type = "olmo2", .scales_rotary = true},
        {.name = "granite", .type = "granite", .more = gguf_granite_settings(), .neighbours = true},
        {.name = "smollm3", .type = "smollm3", .neighbours = true, .scales_rotary = true},
        {.name = "gpt-oss",
         .type = "gpt_oss",
         .attention_bias = "attention_bias",
         .more = gguf_settings_with(gguf_expert_settings(), {gguf_expert_width("")}),
         .windows = windows::every_second,
         .scales_rotary = true,
         .whole_pairs = false,
         .mlp_norm = "post_attention_norm"},
    };
}

/// The generations of Gemma.
inline std::vector<gguf_architecture> gguf_architectures_like_gemma() {
    using windows = gguf_windows;
    return {
        {.name = "gemma",
         .type = "gemma",
         .implied = R"({"hidden_activation": "gelu_pytorch_tanh"})",
         .always_tied = true},
        {.name = "gemma2",
         .type = "gemma2",
         .more = gguf_cap_settings(),
         .windows = windows::every_second,
         .always_tied = true,
         .largest = 46},
        {.name = "gemma3",
         .type = "gemma3_text",
         .more = {gguf_cap_settings().back()},
         .windows = windows::five_of_six,
         .scales_rotary = true,
         .largest = 62},
    };
}

/// Families with parallel branches, joined layers or LayerNorm.
inline std::vector<gguf_architecture> gguf_architectures_like_gpt() {
    using c = model_configuration const&;
    return {
        {.name = "phi2", .type = "phi"},
        {.name = "phi3",
         .type = "phi3",
         .more = {{"rope.scaling.original_context_length", "original_max_position_embeddings",
                   [](c m) { return gguf_count(m.layers.front().rotary->original_positions); }},
                  {"attention.sliding_window", "", [](c) { return gguf_count(0); }}},
         .joins_qkv = true,
         .joins_gate_up = true,
         .divides_long = true},
        {.name = "gpt2", .type = "gpt2", .joins_qkv = true},
        {.name = "bloom", .type = "bloom", .joins_qkv = true},
        {.name = "falcon",
         .type = "falcon",
         .implied = R"({"new_decoder_architecture": true})",
         .more = {{"attention.head_count_kv", "num_kv_heads", nullptr},
                  {"tensor_data_layout", "", [](c) { return std::optional<io::gguf_value>("jploski"); }}},
         .joins_qkv = true,
         .mlp_norm = "attn_norm",
         .parallel_norm = "attn_norm_2"},
        {.name = "gptneox", .type = "gpt_neox", .more = {gguf_parallel_setting()}, .joins_qkv = true},
        {.name = "mpt",
         .type = "mpt",
         .more = {{"attention.max_alibi_bias", "", [](c) { return gguf_float(8); }}},
         .joins_qkv = true},
        {.name = "stablelm", .type = "stablelm", .attention_bias = "use_qkv_bias", .more = {gguf_parallel_setting()}},
        {.name = "command-r",
         .type = "cohere",
         .more = {{"logit_scale", "logit_scale", [](c m) { return gguf_float(m.logit_multiplier); }}},
         .neighbours = true,
         .always_tied = true},
    };
}

DETENT_INLINE std::vector<gguf_architecture> const& gguf_architectures() {
    static auto const table = [] {
        auto all = gguf_architectures_like_llama();
        for (auto const& more : {gguf_architectures_like_gemma(), gguf_architectures_like_gpt()}) {
            all.insert(all.end(), more.begin(), more.end());
        }
        return all;
    }();
    return table;
}

DETENT_INLINE gguf_architecture const* find_gguf_architecture(std::string_view model_type) {
    auto const& all = gguf_architectures();
    auto const found = std::ranges::find(all, model_type, &gguf_architecture::type);
    return found != all.end() ? &*found : nullptr;
}

DETENT_INLINE gguf_architecture const& gguf_architecture_of(io::gguf_metadata const& metadata) {
    auto const& name = metadata.get<std::string>("general.architecture");
    bool const experts = metadata.contains(name + ".expert_count") && metadata.integer(name + ".expert_count") > 0;
    gguf_architecture const* found = nullptr;
    for (auto const& a : gguf_architectures()) {
        bool const mixture = std::ranges::find(a.more, "expert_count", &gguf_setting::key) != a.more.end();
        if (a.name == name && mixture == experts && found == nullptr) {
            found = &a;
        }
    }
    if (found == nullptr) {
        throw error("architecture '" + io::printable(name) + "'",
                    std::string(experts ? "with experts " : "") + "is not supported");
    }
    return *found;
}

/// Collects the places of a model's parts.
class gguf_place_map {
public:
    gguf_place_map(model_configuration const& c, std::string prefix, gguf_architecture const& a)
        : c_(c), a_(a), prefix_(std::move(prefix)) {}

    std::map<std::string, gguf_place> make() {
        auto const& n = c_.names;
        add(prefix_ + n.embeddings, {"token_embd"});
        add(n.head, {"output"});
        add(prefix_ + n.final_norm, {"output_norm"});
        if (c_.learned_positions) {
            add(prefix_ + n.positions, {"position_embd"});
        }
        if (c_.embedding_norm) {
            add(prefix_ + n.embedding_norm, {"token_embd_norm"});
        }
        for (std::size_t i = 0; i < c_.layers.size(); ++i) {
            from_ = prefix_ + n.blocks + std::to_string(i) + ".";
            to_ = "blk." + std::to_string(i) + ".";
            add_norms();
            add_attention();
            if (c_.layers[i].experts) {
                add_experts();
            } else {
                add_network(from_ + n.gate, from_ + n.up, from_ + n.down, n.gate_up.empty() ? "" : from_ + n.gate_up,
                            "", c_.intermediate, 0);
            }
        }
        return std::move(places_);
    }

private:
    void add(std::string const& name, gguf_place place) { places_.emplace(name, std::move(place)); }

    void add_norms() {
        auto const& n = c_.names;
        bool const two = c_.parallel && !c_.shared_norm;
        if (c_.norms.input) {
            add(from_ + n.attention_norm, {to_ + std::string(two ? a_.parallel_norm : "attn_norm")});
        }
        if (c_.norms.input && !(c_.parallel && c_.shared_norm)) {
            add(from_ + n.mlp_norm, {to_ + std::string(a_.mlp_norm)});
        }
        if (c_.norms.output) {
            add(from_ + n.attention_output_norm, {to_ + "post_attention_norm"});
            add(from_ + n.mlp_output_norm, {to_ + "post_ffw_norm"});
        }
        if (c_.query_key_norm) {
            add(from_ + n.query_norm, {to_ + "attn_q_norm"});
            add(from_ + n.key_norm, {to_ + "attn_k_norm"});
        }
    }

    void add_attention() {
        auto const& n = c_.names;
        auto const name = [&](char const* role, std::string const& own) {
            return from_ + (n.qkv.empty() ? own : n.qkv + "." + role);
        };
        index_t const queries = c_.heads.heads * c_.heads.head_dim, keys = c_.heads.kv_heads * c_.heads.head_dim;
        auto const place = [&](char const* own, index_t first) {
            return a_.joins_qkv ? gguf_place{to_ + "attn_qkv", first} : gguf_place{to_ + own};
        };
        gguf_place query = place("attn_q", 0), key = place("attn_k", queries);
        auto const law = std::ranges::find_if(c_.layers, [](auto const& l) { return l.rotary.has_value(); });
        query.turned = key.turned = a_.neighbours && law != c_.layers.end() && !law->rotary->interleaved;
        add(name("query", n.query), query);
        add(name("key", n.key), key);
        add(name("value", n.value), place("attn_v", queries + keys));
        add(from_ + n.output, {to_ + "attn_output"});
        if (!n.sinks.empty()) {
            add(from_ + n.sinks, {to_ + "attn_sinks"});
        }
    }

    /// A feed-forward network, whose tensors have names that end in `end`; the numbered `expert` of several.
    void add_network(std::string const& gate, std::string const& up, std::string const& down,
                     std::string const& gate_up, std::string const& end, index_t width, index_t expert) {
        bool const fused = !gate_up.empty();
        std::string const gate_name = fused ? gate_up + ".gate" : gate, up_name = fused ? gate_up + ".up" : up;
        bool const joined = a_.joins_gate_up && c_.gated;
        if (c_.gated) {
            add(gate_name, {to_ + (joined ? "ffn_up" : "ffn_gate") + end, 0, expert});
        }
        add(up_name, {to_ + "ffn_up" + end, joined ? width : 0, expert});
        add(down, {to_ + "ffn_down" + end, 0, expert});
    }

    void add_experts() {
        auto const& n = c_.names;
        auto const& e = *c_.experts;
        add(from_ + n.router, {to_ + "ffn_gate_inp"});
        for (index_t i = 0; i < e.count; ++i) {
            std::string const name = from_ + n.experts + std::to_string(i) + ".";
            add_network(name + n.expert_gate, name + n.expert_up, name + n.expert_down, "", "_exps", e.intermediate, i);
        }
    }

    model_configuration const& c_;
    gguf_architecture const& a_;
    std::string prefix_;
    std::string from_, to_; // what the names of the block's tensors begin with
    std::map<std::string, gguf_place> places_;
};

DETENT_INLINE std::map<std::string, gguf_place> gguf_places(model_configuration const& c, std::string const& prefix,
                                                            gguf_architecture const& a) {
    return gguf_place_map(c, prefix, a).make();
}

DETENT_INLINE std::vector<index_t> rotary_rows(index_t heads, index_t head_dim, index_t rotated) {
    std::vector<index_t> rows;
    for (index_t head = 0; head < heads; ++head) {
        for (index_t i = 0; i < head_dim; ++i) {
            rows.push_back(head * head_dim + (i < rotated ? i / 2 + i % 2 * (rotated / 2) : i));
        }
    }
    return rows;
}

} // namespace detent::inline DETENT_ABI

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <array>
#include <span>

#include "detent/model/families_like_gpt.ipp"
#include "detent/model/families_like_llama.ipp"
#include "detent/model/families_with_experts.ipp"
#include "detent/model/families_with_layer_norm.ipp"
#include "detent/model/family.hpp"

namespace detent::inline DETENT_ABI {

DETENT_INLINE std::span<decoder_family const> families() {
    static constexpr std::array table{
        decoder_family{"llama", llama_names, read_llama_family},
        decoder_family{"mistral", llama_names, read_mistral},
        decoder_family{"ministral", llama_names, read_ministral},
        decoder_family{"ministral3", llama_names, read_ministral3},
        decoder_family{"qwen2", llama_names, read_qwen2},
        decoder_family{"qwen3", llama_names, read_qwen3},
        decoder_family{"gemma", llama_names, read_gemma},
        decoder_family{"gemma2", gemma2_names, read_gemma2},
        decoder_family{"gemma3_text", gemma2_names, read_gemma3},
        decoder_family{"vaultgemma", gemma2_names, read_vaultgemma},
        decoder_family{"phi3", phi3_names, read_phi3},
        decoder_family{"smollm3", llama_names, read_smollm3},
        decoder_family{"granite", llama_names, read_granite},
        decoder_family{"olmo", llama_names, read_olmo},
        decoder_family{"olmo2", olmo2_names, read_olmo2},
        decoder_family{"olmo3", olmo2_names, read_olmo3},
        decoder_family{"exaone4", olmo2_names, read_exaone4},
        decoder_family{"arcee", llama_names, read_arcee},
        decoder_family{"ernie4_5", llama_names, read_ernie},
        decoder_family{"glm", glm_names, read_glm},
        decoder_family{"glm4", glm4_names, read_glm4},
        decoder_family{"helium", llama_names, read_helium},
        decoder_family{"seed_oss", llama_names, read_seed_oss},
        decoder_family{"mixtral", mixtral_names, read_mixtral},
        decoder_family{"qwen2_moe", qwen2_moe_names, read_qwen2_moe},
        decoder_family{"qwen3_moe", expert_names, read_qwen3_moe},
        decoder_family{"olmoe", expert_names, read_olmoe},
        decoder_family{"flex_olmo", flex_olmo_names, read_flex_olmo},
        decoder_family{"granitemoe", granite_moe_names, read_granite_moe},
        decoder_family{"granitemoeshared", granite_moe_names, read_granite_moe},
        decoder_family{"granitemoehybrid", granite_moe_names, read_granite_hybrid},
        decoder_family{"glm4_moe", scored_expert_names, read_glm4_moe},
        decoder_family{"dots1", scored_expert_names, read_dots1},
        decoder_family{"solar_open", scored_expert_names, read_solar_open},
        decoder_family{"gpt_oss", gpt_oss_names, read_gpt_oss},
        decoder_family{"stablelm", llama_names, read_stablelm},
        decoder_family{"starcoder2", starcoder2_names, read_starcoder2},
        decoder_family{"nemotron", llama_names, read_nemotron},
        decoder_family{"jais2", llama_names, read_jais2},
        decoder_family{"cohere", shared_norm_names, read_cohere},
        decoder_family{"cohere2", shared_norm_names, read_cohere2},
        decoder_family{"opt", opt_names, read_opt},
        decoder_family{"gpt2", gpt2_names, read_gpt2},
        decoder_family{"gpt_bigcode", gpt_bigcode_names, read_gpt_bigcode},
        decoder_family{"gpt_neo", gpt_neo_names, read_gpt_neo},
        decoder_family{"gptj", gptj_names, read_gptj},
        decoder_family{"gpt_neox", gpt_neox_names, read_gpt_neox},
        decoder_family{"bloom", bloom_names, read_bloom},
        decoder_family{"falcon", falcon_names, read_falcon},
        decoder_family{"mpt", mpt_names, read_mpt},
        decoder_family{"persimmon", persimmon_names, read_persimmon},
        decoder_family{"phi", phi_names, read_phi},
    };
    return table;
}

} // namespace detent::inline DETENT_ABI

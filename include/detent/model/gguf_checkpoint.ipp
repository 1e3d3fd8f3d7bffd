// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <variant>
#include <vector>

#include <nlohmann/json.hpp>

#include "detent/core/error.hpp"
#include "detent/core/half.hpp"
#include "detent/io/atomic_file.hpp"
#include "detent/io/gguf_file.hpp"
#include "detent/io/text_file.hpp"
#include "detent/model/exact_numbers.hpp"
#include "detent/model/gguf_checkpoint.hpp"
#include "detent/model/load_gguf.hpp"
#include "detent/model/model_tensors.hpp"
#include "detent/model/read_gguf_tokenizer.hpp"

namespace detent::inline DETENT_ABI {

/// The header of a safetensors file that grows tensor by tensor, and how many bytes of data it says.
class hollow_checkpoint {
public:
    /// Adds a tensor that is not there yet.
    void add(std::string const& name, char const* type, index_t bytes_each, std::vector<index_t> const& shape) {
        if (header_.contains(name)) {
            return;
        }
        index_t size = bytes_each;
        for (index_t const extent : shape) {
            size *= extent;
        }
        header_[name] = {{"dtype", type}, {"shape", shape}, {"data_offsets", {bytes_, bytes_ + size}}};
        bytes_ += size;
    }

    /// A tensor of the type that has all of these numbers.
    void add(std::string const& name, std::span<float const> numbers, std::vector<index_t> const& shape) {
        are_numbers_of<half>(numbers)       ? add(name, "F16", 2, shape)
        : are_numbers_of<bfloat16>(numbers) ? add(name, "BF16", 2, shape)
                                            : add(name, "F32", 4, shape);
    }

    void save(std::filesystem::path const& path) const {
        auto whole = header_;
        whole["__metadata__"] = {{"format", "pt"}};
        std::string text = whole.dump();
        text.resize((text.size() + 7) / 8 * 8, ' ');
        auto const length = static_cast<std::uint64_t>(text.size());
        io::atomic_file file(path);
        file.write(std::string_view(reinterpret_cast<char const*>(&length), sizeof length));
        file.write(text);
        file.commit();
        std::error_code failure;
        std::filesystem::resize_file(path, sizeof length + length + static_cast<std::uint64_t>(bytes_), failure);
        if (failure) {
            throw error(path.string(), "cannot be written: " + failure.message());
        }
    }

private:
    nlohmann::json header_ = nlohmann::json::object();
    index_t bytes_ = 0;
};

/// The tensors of a layer, or those that it shares with others. Packed weights may become any floats.
inline void add_hollow_layer(hollow_checkpoint& file, linear_layer const& layer) {
    auto const [out, in] = layer.shape();
    auto const& shared = layer.stored;
    index_t const rows = shared ? shared->rows : out;
    std::vector<index_t> shape = layer.transposed ? std::vector{in, rows} : std::vector{rows, in};
    std::vector<index_t> bias_shape{rows};
    if (shared && shared->experts > 0) {
        shape.insert(shape.begin(), shared->experts);
        bias_shape.insert(bias_shape.begin(), shared->experts);
    }
    std::string const name = shared ? shared->weight_name() : layer.name + ".weight";
    if (auto const* const w = std::get_if<matrix>(&layer.weight)) {
        file.add(name, std::span(w->data(), static_cast<std::size_t>(w->size())), shape);
    } else {
        file.add(name, "F16", 2, shape);
    }
    if (layer.bias.size() > 0) {
        file.add(shared ? shared->bias_name() : layer.name + ".bias", "F32", 4, bias_shape);
    }
}

/// The class of transformers that a family's models are of, which some programs ask for.
inline std::string gguf_model_class(std::string const& family) {
    constexpr std::array<std::pair<std::string_view, std::string_view>, 22> classes{{
        {"bloom", "BloomForCausalLM"},     {"cohere", "CohereForCausalLM"},
        {"falcon", "FalconForCausalLM"},   {"gemma", "GemmaForCausalLM"},
        {"gemma2", "Gemma2ForCausalLM"},   {"gemma3_text", "Gemma3ForCausalLM"},
        {"gpt2", "GPT2LMHeadModel"},       {"gpt_neox", "GPTNeoXForCausalLM"},
        {"gpt_oss", "GptOssForCausalLM"},  {"granite", "GraniteForCausalLM"},
        {"llama", "LlamaForCausalLM"},     {"mistral", "MistralForCausalLM"},
        {"mixtral", "MixtralForCausalLM"}, {"mpt", "MptForCausalLM"},
        {"olmo2", "Olmo2ForCausalLM"},     {"phi", "PhiForCausalLM"},
        {"phi3", "Phi3ForCausalLM"},       {"qwen2", "Qwen2ForCausalLM"},
        {"qwen3", "Qwen3ForCausalLM"},     {"qwen3_moe", "Qwen3MoeForCausalLM"},
        {"smollm3", "SmolLM3ForCausalLM"}, {"stablelm", "StableLmForCausalLM"},
    }};
    auto const found = std::ranges::find(classes, family, [](auto const& c) { return c.first; });
    return found != classes.end() ? std::string(found->second) : std::string();
}

/// The tokenizer_config.json beside a tokenizer.json that was made of a file.
inline nlohmann::json gguf_tokenizer_settings(io::gguf_metadata const& metadata) {
    nlohmann::json settings{{"tokenizer_class", "PreTrainedTokenizerFast"}, {"clean_up_tokenization_spaces", false}};
    auto const& tokens = metadata.get<std::vector<std::string>>("tokenizer.ggml.tokens");
    for (auto const& [key, field] :
         {std::pair{"bos_token_id", "bos_token"}, std::pair{"eos_token_id", "eos_token"},
          std::pair{"unknown_token_id", "unk_token"}, std::pair{"padding_token_id", "pad_token"}}) {
        std::string const name = std::string("tokenizer.ggml.") + key;
        auto const id = metadata.contains(name) ? metadata.integer(name) : -1;
        if (id >= 0 && id < std::ssize(tokens)) {
            settings[field] = tokens[static_cast<std::size_t>(id)];
        }
    }
    if (metadata.contains("tokenizer.chat_template")) {
        settings["chat_template"] = metadata.get<std::string>("tokenizer.chat_template");
    }
    return settings;
}

DETENT_INLINE void write_gguf_source(std::filesystem::path const& path, decoder const& model,
                                     std::filesystem::path const& directory) {
    io::gguf_file const source(path);
    auto json = read_gguf_configuration(source);
    if (auto const name = gguf_model_class(model.configuration.type); !name.empty()) {
        json["architectures"] = nlohmann::json::array({name});
    }
    hollow_checkpoint file;
    auto const tensors = tensors_of(model);
    for (auto const& layer : tensors.layers) {
        add_hollow_layer(file, *layer.of);
    }
    for (auto const& [name, tensor] : tensors.floats) {
        file.add(name, "F32", 4, tensor.shape);
    }
    std::filesystem::create_directories(directory);
    io::write_text(directory / "config.json", json.dump(2) + "\n");
    if (has_gguf_tokenizer(source.metadata())) {
        io::write_text(directory / "tokenizer.json", read_gguf_tokenizer_json(source.metadata()).dump() + "\n");
        io::write_text(directory / "tokenizer_config.json", gguf_tokenizer_settings(source.metadata()).dump(2) + "\n");
    }
    file.save(directory / "model.safetensors");
}

} // namespace detent::inline DETENT_ABI

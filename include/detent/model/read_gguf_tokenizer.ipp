// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "detent/core/error.hpp"
#include "detent/io/gguf_metadata.hpp"
#include "detent/io/json.hpp"
#include "detent/model/gguf_words.hpp"
#include "detent/model/read_gguf_tokenizer.hpp"
#include "detent/text/tokenizer.hpp"

namespace detent::inline DETENT_ABI {

/// Builds a tokenizer.json from what a file says.
class gguf_tokenizer_reader {
public:
    explicit gguf_tokenizer_reader(io::gguf_metadata const& metadata)
        : metadata_(metadata), tokens_(list<std::string>("tokens")), kinds_(list<std::int32_t>("token_type")) {
        kinds_.resize(tokens_.size(), static_cast<std::int32_t>(gguf_token_kind::normal));
        for (std::size_t id = 0; id < tokens_.size(); ++id) {
            ids_.emplace(tokens_[id], static_cast<std::int64_t>(id));
        }
    }

    nlohmann::json read() {
        std::string const model = metadata_.get<std::string>("tokenizer.ggml.model");
        nlohmann::json json{{"added_tokens", added_tokens()}};
        if (model == "gpt2") {
            add_byte_pairs(json);
        } else if (model == "llama") {
            add_sentence_pairs(json);
        } else {
            throw error("key 'tokenizer.ggml.model'",
                        "is '" + io::printable(model) + "', which is not read; gpt2 and llama are");
        }
        bool const begins = flag("add_bos_token", model == "llama"), ends = flag("add_eos_token", false);
        json["post_processor"] =
            around(begins ? special("bos_token_id") : std::nullopt, ends ? special("eos_token_id") : std::nullopt);
        return json;
    }

private:
    template <class T> std::vector<T> list(char const* key) const {
        std::string const name = std::string("tokenizer.ggml.") + key;
        return metadata_.contains(name) ? metadata_.get<std::vector<T>>(name) : std::vector<T>();
    }

    bool flag(char const* key, bool missing) const {
        std::string const name = std::string("tokenizer.ggml.") + key;
        return metadata_.contains(name) ? metadata_.get<bool>(name) : missing;
    }

    std::optional<std::string> special(char const* key) const {
        std::string const name = std::string("tokenizer.ggml.") + key;
        auto const id = metadata_.contains(name) ? metadata_.integer(name) : -1;
        return id >= 0 && id < std::ssize(tokens_) ? std::optional(tokens_[static_cast<std::size_t>(id)])
                                                   : std::nullopt;
    }

    gguf_token_kind kind(std::size_t id) const { return static_cast<gguf_token_kind>(kinds_[id]); }

    nlohmann::json added_tokens() const {
        auto added = nlohmann::json::array();
        for (std::size_t id = 0; id < tokens_.size(); ++id) {
            bool const control = kind(id) == gguf_token_kind::control;
            if (control || kind(id) == gguf_token_kind::user_defined) {
                added.push_back({{"id", id},
                                 {"content", tokens_[id]},
                                 {"single_word", false},
                                 {"lstrip", false},
                                 {"rstrip", false},
                                 {"normalized", false},
                                 {"special", control}});
            }
        }
        return added;
    }

    nlohmann::json vocabulary() const {
        auto all = nlohmann::json::object();
        for (auto const& [token, id] : ids_) {
            if (kind(static_cast<std::size_t>(id)) != gguf_token_kind::unused) {
                all[token] = id;
            }
        }
        return all;
    }

    nlohmann::json around(std::optional<std::string> const& before, std::optional<std::string> const& after) const {
        nlohmann::json result{{"type", "TemplateProcessing"},
                              {"single", nlohmann::json::array()},
                              {"special_tokens", nlohmann::json::object()}};
        auto const add = [&](std::optional<std::string> const& token) {
            if (token) {
                result["single"].push_back({{"SpecialToken", {{"id", *token}, {"type_id", 0}}}});
                result["special_tokens"][*token] = {{"id", *token}, {"ids", nlohmann::json::array({ids_.at(*token)})}};
            }
        };
        add(before);
        result["single"].push_back({{"Sequence", {{"id", "A"}, {"type_id", 0}}}});
        add(after);
        return result;
    }

    /// Byte-level BPE.
    void add_byte_pairs(nlohmann::json& json) const {
        std::string pre = "default";
        if (metadata_.contains("tokenizer.ggml.pre")) {
            pre = metadata_.get<std::string>("tokenizer.ggml.pre");
        }
        auto const alias = std::ranges::find(gguf_word_aliases, pre, [](auto const& a) { return a.first; });
        std::string_view const name = alias != gguf_word_aliases.end() ? alias->second : pre;
        auto const words = std::ranges::find(gguf_word_patterns(), name, &gguf_words::name);
        if (words == gguf_word_patterns().end()) {
            throw error("key 'tokenizer.ggml.pre'", "is '" + io::printable(pre) + "', which is not known");
        }
        nlohmann::json const bytes{
            {"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", words->pattern.empty()}};
        auto steps = nlohmann::json::array();
        if (words->digits) {
            steps.push_back({{"type", "Digits"}, {"individual_digits", true}});
        }
        if (!words->pattern.empty()) {
            steps.push_back({{"type", "Split"},
                             {"pattern", {{"Regex", words->pattern}}},
                             {"behavior", "Isolated"},
                             {"invert", false}});
        }
        steps.push_back(bytes);
        json["pre_tokenizer"] = {{"type", "Sequence"}, {"pretokenizers", std::move(steps)}};
        json["decoder"] = bytes;
        json["model"] = {{"type", "BPE"}, {"vocab", vocabulary()}, {"merges", list<std::string>("merges")}};
    }

    /// SentencePiece's BPE: two tokens whose text together is a token are merged, that with the best score first.
    void add_sentence_pairs(nlohmann::json& json) const {
        auto scores = list<float>("scores");
        scores.resize(tokens_.size());
        std::vector<std::tuple<float, std::int64_t, std::string, std::string>> pairs;
        for (auto const& [token, id] : ids_) {
            auto const i = static_cast<std::size_t>(id);
            if (kind(i) != gguf_token_kind::normal) {
                continue;
            }
            for (std::size_t cut = 1; cut < token.size(); ++cut) {
                auto const left = ids_.find(token.substr(0, cut)), right = ids_.find(token.substr(cut));
                if (left != ids_.end() && right != ids_.end()) {
                    pairs.emplace_back(-scores[i], id, left->first, right->first);
                }
            }
        }
        std::ranges::sort(pairs);
        auto merges = nlohmann::json::array();
        for (auto& [score, id, left, right] : pairs) {
            merges.push_back(nlohmann::json::array({left, right}));
        }
        json["model"] = {{"type", "BPE"},
                         {"vocab", vocabulary()},
                         {"merges", std::move(merges)},
                         {"byte_fallback", true},
                         {"fuse_unk", true},
                         {"unk_token", special("unknown_token_id").value_or("<unk>")}};
        bool const prefix = flag("add_space_prefix", true);
        nlohmann::json const underscores{{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "\u2581"}};
        auto normalizers = nlohmann::json::array();
        if (prefix) {
            normalizers.push_back({{"type", "Prepend"}, {"prepend", "\u2581"}});
        }
        normalizers.push_back(underscores);
        json["normalizer"] = {{"type", "Sequence"}, {"normalizers", std::move(normalizers)}};
        nlohmann::json steps =
            nlohmann::json::array({{{"type", "Replace"}, {"pattern", {{"String", "\u2581"}}}, {"content", " "}},
                                   {{"type", "ByteFallback"}},
                                   {{"type", "Fuse"}}});
        if (prefix) {
            steps.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
        }
        json["decoder"] = {{"type", "Sequence"}, {"decoders", std::move(steps)}};
    }

    io::gguf_metadata const& metadata_;
    std::vector<std::string> tokens_;
    std::vector<std::int32_t> kinds_;
    std::map<std::string, std::int64_t> ids_;
};

DETENT_INLINE bool has_gguf_tokenizer(io::gguf_metadata const& metadata) {
    return metadata.contains("tokenizer.ggml.model") && metadata.contains("tokenizer.ggml.tokens");
}

DETENT_INLINE nlohmann::json read_gguf_tokenizer_json(io::gguf_metadata const& metadata) {
    return gguf_tokenizer_reader(metadata).read();
}

DETENT_INLINE text::tokenizer read_gguf_tokenizer(io::gguf_metadata const& metadata) {
    return text::tokenizer(text::read_tokenizer_json(read_gguf_tokenizer_json(metadata), "tokenizer.ggml"));
}

} // namespace detent::inline DETENT_ABI

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "detent/core/error.hpp"
#include "detent/io/gguf_metadata.hpp"
#include "detent/io/json.hpp"
#include "detent/io/text_file.hpp"
#include "detent/model/gguf_words.hpp"
#include "detent/model/write_gguf_tokenizer.hpp"
#include "detent/text/byte_characters.hpp"
#include "detent/text/load_tokenizer.hpp"
#include "detent/text/sentence_piece_file.hpp"
#include "detent/text/utf8.hpp"
#include "detent/text/vocabulary.hpp"

namespace detent::inline DETENT_ABI {

/// A vocabulary on its way into a file.
class gguf_vocabulary {
public:
    gguf_vocabulary(index_t size, std::string file) : file_(std::move(file)) {
        for (index_t id = 0; id < size; ++id) {
            tokens.push_back("[PAD" + std::to_string(id) + "]");
        }
        kinds.assign(tokens.size(), static_cast<std::int32_t>(gguf_token_kind::unused));
        scores.assign(tokens.size(), -10000.0F);
    }

    /// Sets the token of an id. @throws error when the model has no embedding for it.
    void set(std::int64_t id, std::string token, gguf_token_kind kind, float score = -10000) {
        if (id < 0 || id >= std::ssize(tokens)) {
            throw error(file_, "gives the token '" + io::printable(token) + "' the id " + std::to_string(id) +
                                   ", but the model has " + std::to_string(tokens.size()) + " tokens");
        }
        auto const i = static_cast<std::size_t>(id);
        ids_[token] = id;
        tokens[i] = std::move(token);
        kinds[i] = static_cast<std::int32_t>(kind);
        scores[i] = score;
    }

    /// The id of a token, or nothing.
    std::optional<std::int64_t> id(std::string const& token) const {
        auto const found = ids_.find(token);
        return found == ids_.end() ? std::nullopt : std::optional(found->second);
    }

    std::vector<std::string> tokens;
    std::vector<std::int32_t> kinds;
    std::vector<float> scores;

private:
    std::string file_;
    std::map<std::string, std::int64_t> ids_;
};

/// Collects what a file says of the tokenizer of a directory.
class gguf_tokenizer_writer {
public:
    gguf_tokenizer_writer(io::gguf_metadata& metadata, std::filesystem::path const& directory,
                          model_configuration const& c)
        : metadata_(metadata), directory_(directory), size_(c.vocabulary), settings_(read("tokenizer_config.json")),
          configuration_(read("config.json")) {}

    void run() {
        auto const there = [&](char const* name) { return std::filesystem::exists(directory_ / name); };
        if (there("tokenizer.model")) {
            add_sentence_piece();
        } else if (there("tokenizer.json") || there("vocab.json")) {
            add_json();
        } else if (size_ == 256) {
            add_bytes();
        } else {
            throw error(directory_.string(), "has no tokenizer that llama.cpp could use: none of tokenizer.json, "
                                             "tokenizer.model, and vocab.json with merges.txt");
        }
        add_chat_template();
    }

private:
    nlohmann::json read(char const* name) const {
        auto const file = directory_ / name;
        return std::filesystem::exists(file) ? io::read_json(file) : nlohmann::json::object();
    }

    template <class T> void add(char const* key, T value) {
        metadata_.add(std::string("tokenizer.ggml.") + key, io::gguf_value(std::move(value)));
    }

    /// What tokenizer_config.json says with `field`: a string, or an object with its content; empty for none.
    std::string token_setting(char const* field) const {
        auto const found = settings_.find(field);
        if (found != settings_.end() && found->is_object() && found->contains("content")) {
            return found->at("content").is_string() ? found->at("content").get<std::string>() : "";
        }
        return found != settings_.end() && found->is_string() ? found->get<std::string>() : "";
    }

    /// Adds the ids of special tokens: those that tokenizer_config.json names, or that config.json has, or `missing`.
    void add_special(gguf_vocabulary const& all, std::map<std::string, std::int64_t> const& missing) {
        for (auto const& [name, key] : {std::pair{"bos", "bos_token_id"}, std::pair{"eos", "eos_token_id"},
                                        std::pair{"unk", "unknown_token_id"}, std::pair{"pad", "padding_token_id"}}) {
            std::string const word = name;
            auto id = all.id(token_setting((word + "_token").c_str()));
            auto const field = configuration_.find(word + "_token_id");
            if (!id && field != configuration_.end()) {
                auto const& first = field->is_array() && !field->empty() ? field->front() : *field;
                id = first.is_number_integer() ? std::optional(first.get<std::int64_t>()) : std::nullopt;
            }
            if (!id && missing.contains(word)) {
                id = missing.at(word);
            }
            if (id && *id >= 0 && *id < size_) {
                add(key, static_cast<std::uint32_t>(*id));
            }
        }
    }

    void add_tokens(char const* model, std::string_view words, gguf_vocabulary&& all, bool scored) {
        add("model", std::string(model));
        add("pre", std::string(words));
        add("tokens", std::move(all.tokens));
        if (scored) {
            add("scores", std::move(all.scores));
        }
        add("token_type", std::move(all.kinds));
    }

    /// Adds what `encode` puts around texts.
    void add_around() {
        auto const tokenizer = text::load_tokenizer(directory_);
        add("add_bos_token", !tokenizer.special_ids().front.empty());
        add("add_eos_token", !tokenizer.special_ids().back.empty());
    }

    void add_bytes() {
        gguf_vocabulary all(size_, directory_.string());
        for (int byte = 0; byte < 256; ++byte) {
            std::string const one(1, static_cast<char>(byte));
            all.set(byte, text::characters_of_bytes(one), gguf_token_kind::normal);
        }
        auto const special = all; // whose tokens are not moved yet
        add_tokens("gpt2", "gpt-2", std::move(all), false);
        add("merges", std::vector<std::string>());
        add_special(special, {});
        add("add_bos_token", false);
        add("add_eos_token", false);
    }

    void add_sentence_piece() {
        std::string const file = (directory_ / "tokenizer.model").string();
        auto const model = text::read_sentence_piece(io::read_text(file), file);
        gguf_vocabulary all(size_, file);
        for (std::size_t id = 0; id < model.pieces.size(); ++id) {
            auto const& piece = model.pieces[id];
            all.set(static_cast<std::int64_t>(id), piece.text, piece.type, piece.score);
        }
        set_added(all, read("tokenizer.json"));
        auto const special = all;
        add_tokens(model.is_unigram ? "t5" : "llama", "default", std::move(all), true);
        add_special(
            special,
            {{"bos", model.begin_id}, {"eos", model.end_id}, {"unk", model.unknown_id}, {"pad", model.padding_id}});
        add("add_space_prefix", settings_.value("add_prefix_space", model.adds_space));
        if (model.is_unigram) {
            add("remove_extra_whitespaces", model.removes_spaces);
            add("precompiled_charsmap", std::vector<std::uint8_t>(model.charsmap.begin(), model.charsmap.end()));
        }
        add_around();
    }

    /// Tokens that are looked for in text before the model: of tokenizer_config.json and of tokenizer.json.
    void set_added(gguf_vocabulary& all, nlohmann::json const& json) const {
        auto const set = [&](nlohmann::json const& token, std::int64_t id) {
            bool const special = token.value("special", false);
            all.set(id, token.value("content", std::string()),
                    special ? gguf_token_kind::control : gguf_token_kind::user_defined, -1000);
        };
        auto const decoder = settings_.find("added_tokens_decoder");
        if (decoder != settings_.end() && decoder->is_object()) {
            for (auto const& [id, token] : decoder->items()) {
                set(token, std::atoll(id.c_str()));
            }
        }
        auto const list = json.find("added_tokens");
        for (auto const& token : list != json.end() ? *list : nlohmann::json::array()) {
            set(token, token.value("id", std::int64_t{-1}));
        }
    }

    static bool has_type(nlohmann::json const& json, char const* part, std::string_view type) {
        auto const found = json.find(part);
        if (found == json.end() || !found->is_object()) {
            return false;
        }
        for (auto const* list : {"pretokenizers", "normalizers", "decoders"}) {
            if (found->contains(list)) {
                return std::ranges::any_of((*found)[list],
                                           [&](auto const& p) { return p.value("type", std::string()) == type; });
            }
        }
        return found->value("type", std::string()) == type;
    }

    /// The name for how words are cut, which depends on Split, Digits and ByteLevel.
    std::string_view find_words(nlohmann::json const& json, std::string const& file) const {
        auto const& all = json.at("pre_tokenizer");
        auto const list = all.contains("pretokenizers") ? all["pretokenizers"] : nlohmann::json::array({all});
        std::string pattern;
        bool digits = false;
        for (auto const& part : list) {
            std::string const type = part.value("type", std::string());
            digits = digits || type == "Digits";
            if (type == "Split" && part.contains("pattern")) {
                pattern = part["pattern"].value("Regex", part["pattern"].value("String", std::string()));
            }
        }
        for (auto const& words : gguf_word_patterns()) {
            if (words.pattern == pattern && words.digits == digits) {
                return words.name;
            }
        }
        throw error(file, "cuts words by a pattern that llama.cpp has no name for: '" + io::printable(pattern) + "'");
    }

    /// BPE of tokenizer.json: of bytes, or of characters with bytes for those that are unknown.
    void add_json() {
        std::string const file =
            (directory_ / (std::filesystem::exists(directory_ / "tokenizer.json") ? "tokenizer.json" : "vocab.json"))
                .string();
        auto const json = text::tokenizer_json_of(directory_);
        auto const model = json.find("model");
        if (model == json.end() || !model->is_object() || !model->contains("vocab") || !model->contains("merges") ||
            !(*model)["vocab"].is_object()) {
            throw error(file, "is no BPE, the only kind of a tokenizer.json that is written for llama.cpp");
        }
        bool const bytes = has_type(json, "pre_tokenizer", "ByteLevel");
        if (!bytes && !model->value("byte_fallback", false)) {
            throw error(file, "is a BPE neither of bytes nor with a fallback to bytes, which llama.cpp has not");
        }
        std::vector<std::string> merges;
        gguf_vocabulary all(size_, file);
        std::string const unknown = model->contains("unk_token") && (*model)["unk_token"].is_string()
                                        ? (*model)["unk_token"].get<std::string>()
                                        : std::string();
        for (auto const& [token, id] : (*model)["vocab"].items()) {
            bool const byte = !bytes && token.size() == 6 && token.starts_with("<0x");
            all.set(id.get<std::int64_t>(), token,
                    byte                         ? gguf_token_kind::byte
                    : !bytes && token == unknown ? gguf_token_kind::unknown
                                                 : gguf_token_kind::normal);
        }
        for (auto const& merge : (*model)["merges"]) {
            bool const pair = merge.is_array() && merge.size() == 2;
            std::string const left = pair ? merge[0].get<std::string>() : std::string();
            merges.push_back(pair ? left + " " + merge[1].get<std::string>() : merge.get<std::string>());
            auto const space = merges.back().find(' ', std::max<std::size_t>(left.size(), 1));
            auto const whole = all.id(merges.back().substr(0, space) + merges.back().substr(space + 1));
            if (whole && all.scores[static_cast<std::size_t>(*whole)] == -10000.0F) {
                all.scores[static_cast<std::size_t>(*whole)] = -static_cast<float>(merges.size());
            }
        }
        set_added(all, json);
        auto const special = all;
        add_tokens(bytes ? "gpt2" : "llama", bytes ? find_words(json, file) : "default", std::move(all), !bytes);
        if (bytes) {
            add("merges", std::move(merges));
        } else {
            add("add_space_prefix", has_type(json, "normalizer", "Prepend"));
        }
        add_special(special, {});
        add_around();
    }

    void add_chat_template() {
        auto const file = directory_ / "chat_template.jinja";
        auto const found = settings_.find("chat_template");
        std::string text = std::filesystem::exists(file) ? io::read_text(file) : "";
        if (text.empty() && found != settings_.end() && found->is_string()) {
            text = found->get<std::string>();
        }
        if (text.empty() && found != settings_.end() && found->is_array()) {
            for (auto const& one : *found) { // named ones
                text = one.value("name", "") == "default" ? one.value("template", "") : text;
            }
        }
        if (!text.empty()) {
            metadata_.add("tokenizer.chat_template", text);
        }
    }

    io::gguf_metadata& metadata_;
    std::filesystem::path directory_;
    index_t size_; // tokens of the model
    nlohmann::json settings_, configuration_;
};

DETENT_INLINE void add_gguf_tokenizer(io::gguf_metadata& metadata, std::filesystem::path const& directory,
                                      model_configuration const& c) {
    gguf_tokenizer_writer(metadata, directory, c).run();
}

DETENT_INLINE std::string gguf_tokenizer_obstacle(std::filesystem::path const& directory,
                                                  model_configuration const& c) {
    try {
        io::gguf_metadata metadata;
        add_gguf_tokenizer(metadata, directory, c);
        return {};
    } catch (error const& e) {
        return e.what();
    }
}

} // namespace detent::inline DETENT_ABI

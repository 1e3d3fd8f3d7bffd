// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "detent/core/error.hpp"
#include "detent/io/json.hpp"
#include "detent/io/text_file.hpp"
#include "detent/text/load_tokenizer.hpp"
#include "detent/text/part.hpp"
#include "detent/text/sentence_piece.hpp"
#include "detent/text/tokenizer.hpp"
#include "detent/text/utf8.hpp"

namespace detent::inline DETENT_ABI::text {

// The fields of tokenizer_config.json, which may be missing, and what they mean for files that do not say it
// themselves.
class tokenizer_settings {
public:
    explicit tokenizer_settings(std::filesystem::path const& directory)
        : file_(directory / "tokenizer_config.json"),
          json_(std::filesystem::exists(file_) ? io::read_json(file_) : nlohmann::json::object()),
          part_(json_, file_.string()) {}
    tokenizer_settings(tokenizer_settings const&) = delete;
    tokenizer_settings& operator=(tokenizer_settings const&) = delete;

    part const& all() const { return part_; }

    // The class without "Fast" at its end, which says only how transformers runs it.
    std::string tokenizer_class(std::string missing) const {
        std::string name = part_.text("tokenizer_class", std::move(missing));
        constexpr std::string_view fast = "Fast";
        if (name.size() > fast.size() && std::string_view(name).substr(name.size() - fast.size()) == fast) {
            name.resize(name.size() - fast.size());
        }
        return name;
    }

    error unknown_class(std::string const& name) const {
        return part_.wrong("tokenizer_class",
                           "is '" + io::printable(name) + "', which detent reads only from a tokenizer.json");
    }

    // A token such as "bos_token", which is a string or an object with its content; empty if there is none.
    std::string token(std::string const& field, std::string missing) const {
        auto const* found = part_.find(field);
        if (found != nullptr && found->is_object()) {
            return part(*found, part_.name() + ", " + field).text("content");
        }
        return part_.text(field, std::move(missing));
    }

    // The field added_tokens_decoder, tokens by their ids, as the array added_tokens of a tokenizer.json.
    nlohmann::json added_tokens() const {
        auto result = nlohmann::json::array();
        if (part_.find("added_tokens_decoder") == nullptr) {
            return result;
        }
        for (auto const& [id, token] : part_.value("added_tokens_decoder").items()) {
            constexpr std::size_t most_digits = 9;
            if (id.empty() || id.size() > most_digits || id.find_first_not_of("0123456789") != std::string::npos) {
                throw part_.wrong("added_tokens_decoder", "has the id '" + io::printable(id) + "'");
            }
            part const checked(token, part_.name() + ", added_tokens_decoder, " + id);
            result.push_back(token);
            result.back()["id"] = std::stoi(id);
        }
        return result;
    }

private:
    std::filesystem::path file_;
    nlohmann::json json_;
    part part_;
};

// An entry of added_tokens for a special token of the vocabulary.
inline nlohmann::json special_token(std::string const& content, nlohmann::json const& id, bool takes_spaces) {
    return {{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", takes_spaces},
            {"rstrip", false}, {"normalized", false}, {"special", true}};
}

// A tokenizer.json that says what files of older kinds leave to the class of the tokenizer: without added tokens in the
// settings, the special ones that are in the vocabulary.
inline nlohmann::json with_special_tokens(nlohmann::json json, tokenizer_settings const& settings,
                                          std::vector<std::pair<std::string, std::string>> const& defaults) {
    auto& added = json["added_tokens"] = settings.added_tokens();
    if (!added.empty()) {
        return json;
    }
    std::vector<std::string> seen;
    for (auto const& [field, missing] : defaults) {
        std::string const token = settings.token(field, missing);
        auto const found = json["model"]["vocab"].find(token);
        if (found != json["model"]["vocab"].end() && std::ranges::find(seen, token) == seen.end()) {
            added.push_back(special_token(token, *found, field == "mask_token" && missing == "<mask>"));
            seen.push_back(token);
        }
    }
    return json;
}

// A post-processor that puts tokens of the vocabulary, which may be none, around a text.
inline nlohmann::json around_text(nlohmann::json const& vocabulary, std::string const& before, std::string const& after,
                                  std::string const& file) {
    nlohmann::json result{{"type", "TemplateProcessing"},
                          {"single", nlohmann::json::array()},
                          {"special_tokens", nlohmann::json::object()}};
    auto const add = [&](std::string const& token) {
        if (token.empty()) {
            return;
        }
        if (!vocabulary.contains(token)) {
            throw error(file, "has no token '" + io::printable(token) + "', which is to be around texts");
        }
        result["single"].push_back({{"SpecialToken", {{"id", token}, {"type_id", 0}}}});
        result["special_tokens"][token] = {{"id", token}, {"ids", nlohmann::json::array({vocabulary[token]})}};
    };
    add(before);
    result["single"].push_back({{"Sequence", {{"id", "A"}, {"type_id", 0}}}});
    add(after);
    return result;
}

inline nlohmann::json lines_of(std::filesystem::path const& file) {
    std::string const text = io::read_text(file);
    if (!is_utf8(text)) {
        throw error(file.string(), "is not UTF-8");
    }
    auto result = nlohmann::json::array();
    for (std::string_view rest = text; !rest.empty();) {
        auto const end = rest.find('\n');
        auto line = rest.substr(0, end);
        rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
        if (!line.empty() && line.back() == '\r') {
            line.remove_suffix(1);
        }
        result.push_back(line);
    }
    return result;
}

// vocab.json with merges.txt: byte-level BPE.
inline nlohmann::json byte_pair_json(std::filesystem::path const& directory, tokenizer_settings const& settings) {
    std::string const name = settings.tokenizer_class("GPT2Tokenizer");
    bool const qwen = name == "Qwen2Tokenizer";
    bool const roberta = name == "RobertaTokenizer";
    if (!qwen && !roberta && name != "GPT2Tokenizer") {
        throw settings.unknown_class(name);
    }
    auto merges = lines_of(directory / "merges.txt");
    std::erase(merges.get_ref<nlohmann::json::array_t&>(), nlohmann::json(""));
    nlohmann::json json;
    json["model"] = {
        {"type", "BPE"}, {"vocab", io::read_json(directory / "vocab.json")}, {"merges", std::move(merges)}};
    auto const& vocabulary = json["model"]["vocab"];
    if (!vocabulary.is_object()) {
        throw error((directory / "vocab.json").string(), "is not an object of ids by token");
    }
    nlohmann::json bytes{{"type", "ByteLevel"},
                         {"add_prefix_space", settings.all().flag("add_prefix_space", false)},
                         {"use_regex", !qwen}};
    json["decoder"] = bytes;
    if (qwen) {
        json["normalizer"] = {{"type", "NFC"}};
        nlohmann::json const words{{"Regex", "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| "
                                             "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"}};
        nlohmann::json const split{{"type", "Split"}, {"pattern", words}, {"behavior", "Isolated"}, {"invert", false}};
        json["pre_tokenizer"] = {{"type", "Sequence"}, {"pretokenizers", {split, bytes}}};
    } else {
        json["pre_tokenizer"] = bytes;
    }
    std::string const end = roberta ? "</s>" : "<|endoftext|>";
    std::string const begin = roberta ? "<s>" : qwen ? "" : end;
    bool const bos = settings.all().flag("add_bos_token", roberta);
    bool const eos = settings.all().flag("add_eos_token", roberta);
    json["post_processor"] = around_text(
        vocabulary, bos ? settings.token(roberta ? "cls_token" : "bos_token", begin) : "",
        eos ? settings.token(roberta ? "sep_token" : "eos_token", end) : "", (directory / "vocab.json").string());
    return with_special_tokens(std::move(json), settings,
                               {{"bos_token", begin},
                                {"eos_token", end},
                                {"unk_token", roberta ? "<unk>" : end},
                                {"pad_token", roberta ? "<pad>" : ""},
                                {"cls_token", roberta ? "<s>" : ""},
                                {"sep_token", roberta ? "</s>" : ""},
                                {"mask_token", roberta ? "<mask>" : ""}});
}

// vocab.txt: WordPiece, a token a line.
inline nlohmann::json word_piece_json(std::filesystem::path const& file, tokenizer_settings const& settings) {
    std::string const name = settings.tokenizer_class("BertTokenizer");
    if (name != "BertTokenizer" && name != "DistilBertTokenizer" && name != "ElectraTokenizer") {
        throw settings.unknown_class(name);
    }
    auto vocabulary = nlohmann::json::object();
    std::int32_t line = 0;
    for (auto const& token : lines_of(file)) {
        auto const& text = token.get_ref<std::string const&>();
        if (!vocabulary.emplace(text, line).second) {
            throw error(file.string(),
                        "line " + std::to_string(line + 1) + " repeats the token '" + io::printable(text) + "'");
        }
        ++line;
    }
    std::string const unknown = settings.token("unk_token", "[UNK]");
    bool const lower = settings.all().flag("do_lower_case", true);
    nlohmann::json json;
    json["normalizer"] = {{"type", "BertNormalizer"},
                          {"clean_text", true},
                          {"handle_chinese_chars", settings.all().flag("tokenize_chinese_chars", true)},
                          {"strip_accents", settings.all().flag("strip_accents", lower)},
                          {"lowercase", lower}};
    json["pre_tokenizer"] = {{"type", "BertPreTokenizer"}};
    json["decoder"] = {{"type", "WordPiece"}, {"prefix", "##"}, {"cleanup", true}};
    json["post_processor"] = around_text(vocabulary, settings.token("cls_token", "[CLS]"),
                                         settings.token("sep_token", "[SEP]"), file.string());
    json["model"] = {{"type", "WordPiece"}, {"unk_token", unknown}, {"vocab", std::move(vocabulary)}};
    return with_special_tokens(std::move(json), settings,
                               {{"unk_token", "[UNK]"},
                                {"sep_token", "[SEP]"},
                                {"pad_token", "[PAD]"},
                                {"cls_token", "[CLS]"},
                                {"mask_token", "[MASK]"}});
}

// tokenizer.model. Other classes than these give SentencePiece's tokens ids of their own.
inline tokenizer_parts sentence_piece_parts(std::filesystem::path const& file, tokenizer_settings const& settings) {
    std::string const name = settings.tokenizer_class("LlamaTokenizer");
    bool const t5 = name == "T5Tokenizer";
    if (!t5 && name != "LlamaTokenizer" && name != "CodeLlamaTokenizer" && name != "GemmaTokenizer") {
        throw settings.unknown_class(name);
    }
    auto model = std::make_unique<sentence_piece_model>(io::read_text(file), file.string());
    tokenizer_parts result;
    auto const add = [&](std::vector<std::int32_t>& ids, std::optional<std::int32_t> id, char const* flag,
                         bool missing) {
        if (settings.all().flag(flag, missing && id.has_value())) {
            ids.push_back(
                id ? *id : throw settings.all().wrong(flag, "is true, but " + file.string() + " has no such token"));
        }
    };
    add(result.post_processor.front, model->begin_id(), "add_bos_token", !t5);
    add(result.post_processor.back, model->end_id(), "add_eos_token", t5);
    nlohmann::json const added{{"added_tokens", settings.added_tokens()}};
    result.added_tokens = added_tokens(read_added_tokens(part(added, settings.all().name())), *model, result.normalizer,
                                       settings.all().name());
    result.model = std::move(model);
    return result;
}

constexpr std::array<std::string_view, 4> tokenizer_files{"tokenizer.json", "tokenizer.model", "vocab.json",
                                                          "vocab.txt"};

DETENT_INLINE bool has_tokenizer(std::filesystem::path const& directory) {
    return std::ranges::any_of(tokenizer_files,
                               [&](std::string_view name) { return std::filesystem::exists(directory / name); });
}

DETENT_INLINE nlohmann::json tokenizer_json_of(std::filesystem::path const& directory) {
    if (std::filesystem::exists(directory / "tokenizer.json")) {
        return io::read_json(directory / "tokenizer.json");
    }
    return byte_pair_json(directory, tokenizer_settings(directory));
}

DETENT_INLINE tokenizer load_tokenizer(std::filesystem::path const& path) {
    if (std::filesystem::is_directory(path)) {
        for (auto const name : tokenizer_files) {
            if (std::filesystem::exists(path / name)) {
                return load_tokenizer(path / name);
            }
        }
        throw error(
            path.string(),
            "has no tokenizer: none of tokenizer.json, tokenizer.model, vocab.json with merges.txt, and vocab.txt");
    }
    tokenizer_settings const settings(path.parent_path());
    std::string const name = path.filename().string();
    if (name == "vocab.json" || name == "merges.txt") {
        return tokenizer(read_tokenizer_json(byte_pair_json(path.parent_path(), settings), path.string()));
    }
    if (path.extension() == ".json") {
        return tokenizer(read_tokenizer_json(io::read_json(path), path.string()));
    }
    if (path.extension() == ".model") {
        return tokenizer(sentence_piece_parts(path, settings));
    }
    if (path.extension() == ".txt") {
        return tokenizer(read_tokenizer_json(word_piece_json(path, settings), path.string()));
    }
    throw error(path.string(), "is no file of a tokenizer: its name ends neither in .json, .model nor .txt");
}

} // namespace detent::inline DETENT_ABI::text

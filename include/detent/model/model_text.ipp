// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "detent/core/error.hpp"
#include "detent/io/gguf_file.hpp"
#include "detent/io/tokens.hpp"
#include "detent/model/model_text.hpp"
#include "detent/model/read_gguf_tokenizer.hpp"
#include "detent/text/load_tokenizer.hpp"
#include "detent/text/read_text.hpp"

namespace detent::inline DETENT_ABI {

DETENT_INLINE model_text::model_text(std::filesystem::path source, model_configuration const& c)
    : source_(std::move(source)), vocabulary_(c.vocabulary), begin_(c.begin_of_text) {
    if (is_gguf()) {
        tokenized_ = has_gguf_tokenizer(io::gguf_file(source_).metadata());
    } else {
        tokenized_ = !source_.empty() && (!std::filesystem::is_directory(source_) || text::has_tokenizer(source_));
    }
    bytes_ = !tokenized_ && vocabulary_ == 256;
    if (!c.end_of_text.empty()) {
        end_ = c.end_of_text.front();
    }
}

DETENT_INLINE text::tokenizer const& model_text::tokenizer() const {
    if (!tokenizer_) {
        tokenizer_ = std::make_unique<text::tokenizer const>(
            is_gguf() ? read_gguf_tokenizer(io::gguf_file(source_).metadata()) : text::load_tokenizer(source_));
    }
    return *tokenizer_;
}

DETENT_INLINE void model_text::expect_in_vocabulary(std::span<nn::token_id const> ids, std::string const& name) const {
    for (std::size_t i = 0; i < ids.size(); ++i) {
        if (ids[i] < 0 || index_t{ids[i]} >= vocabulary_) {
            throw error(name, "token " + std::to_string(i) + " is " + std::to_string(ids[i]) +
                                  ", beyond the model's vocabulary of " + std::to_string(vocabulary_));
        }
    }
}

DETENT_INLINE std::vector<nn::token_id> model_text::encode(std::string_view text, std::string const& name) const {
    if (tokenized_) {
        auto ids = tokenizer().encode(text, true);
        expect_in_vocabulary(ids, name);
        return ids;
    }
    if (!bytes_) {
        throw error(name, "is text, but the model has no tokenizer, and its vocabulary of " +
                              std::to_string(vocabulary_) +
                              " is not bytes: give a tokenizer, or token ids in files *.u16 or *.u32");
    }
    std::vector<nn::token_id> ids;
    ids.reserve(text.size());
    for (char const c : text) {
        ids.push_back(static_cast<unsigned char>(c));
    }
    return ids;
}

DETENT_INLINE std::vector<nn::token_id> model_text::read(std::span<std::filesystem::path const> files) const {
    std::vector<nn::token_id> all;
    for (auto const& file : files) {
        if (file.extension() == ".u16" || file.extension() == ".u32") {
            auto const ids = io::read_tokens(file);
            expect_in_vocabulary(ids, file.string());
            all.insert(all.end(), ids.begin(), ids.end());
            continue;
        }
        for (auto const& document : text::read_text_files({&file, 1})) {
            auto const ids = encode(document.text, document.name);
            if (tokenized_ && !all.empty() && end_) {
                auto const& around = tokenizer().special_ids();
                if (around.front.empty() && around.back.empty()) {
                    all.push_back(static_cast<nn::token_id>(*end_));
                }
            }
            all.insert(all.end(), ids.begin(), ids.end());
        }
    }
    return all;
}

DETENT_INLINE std::vector<nn::token_id> model_text::prompt(std::string_view text) const {
    auto ids = encode(text, "prompt");
    if (tokenized_) {
        ids.resize(ids.size() - tokenizer().special_ids().back.size());
    }
    if (ids.empty()) {
        if (!begin_) {
            throw error("prompt", "is empty, and the model has no token that begins a text");
        }
        ids.push_back(static_cast<nn::token_id>(*begin_));
    }
    return ids;
}

DETENT_INLINE token_writer::token_writer(model_text const& text) : bytes_(text.bytes_) {
    if (text.tokenized_) {
        stream_.emplace(text.tokenizer());
    }
}

DETENT_INLINE std::string token_writer::push(nn::token_id id) {
    return stream_ ? stream_->push(id) : bytes_ ? std::string(1, static_cast<char>(id)) : std::to_string(id) + " ";
}

} // namespace detent::inline DETENT_ABI

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "detent/core/eigen.hpp"
#include "detent/core/error.hpp"
#include "detent/core/executor.hpp"
#include "detent/model/block.hpp"
#include "detent/model/encoder.hpp"
#include "detent/model/encoder_configuration.hpp"
#include "detent/model/linear_layer.hpp"
#include "detent/model/norm_layer.hpp"
#include "detent/nn/tokens.hpp"

namespace detent::inline DETENT_ABI {

DETENT_INLINE std::vector<sentence_batch> batch_sentences(std::span<std::vector<nn::token_id> const> sentences,
                                                          index_t most_tokens) {
    std::map<std::size_t, std::vector<sentence_batch>> by_length;
    for (std::size_t i = 0; i < sentences.size(); ++i) {
        auto const& sentence = sentences[i];
        if (sentence.empty()) {
            throw error("sentence " + std::to_string(i), "has no tokens");
        }
        auto& batches = by_length[sentence.size()];
        if (batches.empty() || std::ssize(batches.back().tokens) + std::ssize(sentence) > most_tokens) {
            batches.emplace_back();
        }
        batches.back().positions.push_back(static_cast<index_t>(i));
        batches.back().tokens.insert(batches.back().tokens.end(), sentence.begin(), sentence.end());
    }
    std::vector<sentence_batch> all;
    for (auto& [length, batches] : by_length) {
        std::ranges::move(batches, std::back_inserter(all));
    }
    return all;
}

DETENT_INLINE matrix pool_sentences(matrix_view hidden, index_t sequences) {
    index_t const length = nn::token_rows{.sequences = sequences}.length(hidden.rows());
    matrix pooled(sequences, hidden.cols());
    for (index_t s = 0; s < sequences; ++s) {
        pooled.row(s) = hidden.middleRows(s * length, length).colwise().mean().normalized();
    }
    return pooled;
}

DETENT_INLINE matrix text_encoder::embed(std::span<nn::token_id const> tokens, index_t sequences, executor_ref executor,
                                         std::span<nn::token_id const> types) const {
    expect_valid(types.empty() || types.size() == tokens.size(), "types", "are not as many as tokens");
    auto const count = static_cast<index_t>(tokens.size());
    index_t const length = nn::token_rows{.sequences = sequences}.length(count);
    if (length > configuration.max_positions) {
        throw error("sequence of " + std::to_string(length) + " tokens",
                    "is longer than the " + std::to_string(configuration.max_positions) + " the model can take");
    }
    auto const check = [](index_t t, char const* what, index_t id, index_t vocabulary) {
        if (id < 0 || id >= vocabulary) {
            throw error("token " + std::to_string(t), std::string("has ") + what + " " + std::to_string(id) +
                                                          ", outside the vocabulary of " + std::to_string(vocabulary));
        }
    };
    matrix x(count, configuration.hidden); // (token, hidden)
    for (index_t t = 0; t < count; ++t) {
        index_t const id = tokens[static_cast<std::size_t>(t)];
        index_t const type = types.empty() ? 0 : types[static_cast<std::size_t>(t)];
        check(t, "id", id, configuration.vocabulary);
        check(t, "type", type, configuration.token_types);
        x.row(t) = word_embeddings.row(id) + position_embeddings.row(t % length) + token_type_embeddings.row(type);
    }
    return embedding_norm.forward(x, executor);
}

DETENT_INLINE matrix text_encoder::forward(std::span<nn::token_id const> tokens, index_t sequences,
                                           executor_ref executor, std::span<nn::token_id const> types) const {
    matrix x = embed(tokens, sequences, executor, types);
    for (auto const& b : blocks) {
        x = b.forward(std::move(x), {.sequences = sequences}, executor);
    }
    return x;
}

DETENT_INLINE matrix text_encoder::sentence_embeddings(std::span<std::vector<nn::token_id> const> sentences,
                                                       executor_ref executor) const {
    matrix result(std::ssize(sentences), configuration.hidden); // (sentence, hidden)
    for (auto const& batch : batch_sentences(sentences)) {
        index_t const count = batch.sentences();
        matrix const pooled = pool_sentences(forward(batch.tokens, count, executor), count); // (sentence, hidden)
        for (index_t s = 0; s < count; ++s) {
            result.row(batch.positions[static_cast<std::size_t>(s)]) = pooled.row(s);
        }
    }
    return result;
}

DETENT_INLINE matrix image_encoder::normalize(std::span<std::uint8_t const> bytes) const {
    auto const& c = configuration;
    if (std::ssize(bytes) % c.pixels() != 0) {
        throw error("images", "are " + std::to_string(bytes.size()) + " bytes, no multiple of the " +
                                  std::to_string(c.pixels()) + " of an image of the model");
    }
    if (c.pixel_mean.empty()) {
        throw error("images", "cannot be normalized: the model has no mean and deviation of pixels");
    }
    index_t const area = c.image_size * c.image_size;
    matrix images(std::ssize(bytes) / c.pixels(), c.pixels()); // (image, channel * row * column)
    for (index_t i = 0; i < std::ssize(bytes); ++i) {
        auto const channel = static_cast<std::size_t>(i % c.channels);
        index_t const place = i / c.channels % area;
        float const value = static_cast<float>(bytes[static_cast<std::size_t>(i)]) / 255.0F;
        images(i / c.pixels(), static_cast<index_t>(channel) * area + place) =
            (value - c.pixel_mean[channel]) / c.pixel_std[channel];
    }
    return images;
}

DETENT_INLINE matrix image_encoder::embed(matrix_view images, executor_ref executor) const {
    index_t const n = configuration.patches();
    matrix const patches = patch_embedding.forward(cut(images), executor); // (image * patch, hidden)
    matrix x(images.rows() * (1 + n), configuration.hidden);
    for (index_t i = 0; i < images.rows(); ++i) {
        auto image = x.middleRows(i * (1 + n), 1 + n); // (1 + patch, hidden)
        image.row(0) = class_token;
        image.bottomRows(n) = patches.middleRows(i * n, n);
        image += position_embeddings;
    }
    return x;
}

DETENT_INLINE matrix image_encoder::forward(matrix_view images, executor_ref executor) const {
    matrix x = embed(images, executor);
    for (auto const& b : blocks) {
        x = b.forward(std::move(x), {.sequences = images.rows()}, executor);
    }
    return x;
}

DETENT_INLINE matrix image_encoder::logits(matrix_view hidden, executor_ref executor) const {
    index_t const length = 1 + configuration.patches();
    expect_valid(length > 0 && hidden.rows() % length == 0, "hidden states", "are not of whole sequences");
    matrix first(hidden.rows() / length, hidden.cols()); // (image, hidden), of the class tokens
    for (index_t i = 0; i < first.rows(); ++i) {
        first.row(i) = hidden.row(i * length);
    }
    return classifier.forward(final_norm.forward(first, executor), executor);
}

DETENT_INLINE matrix image_encoder::cut(matrix_view images) const {
    auto const& c = configuration;
    expect_valid(images.cols() == c.pixels(), "images", "have another number of pixels than the model");
    index_t const across = c.image_size / c.patch_size;
    index_t const lines = c.channels * c.patch_size; // rows of pixels of a patch
    matrix patches(images.rows() * c.patches(), lines * c.patch_size);
    for (index_t p = 0; p < patches.rows(); ++p) {
        index_t const down = p % c.patches() / across * c.patch_size, right = p % across * c.patch_size;
        for (index_t line = 0; line < lines; ++line) {
            index_t const channel = line / c.patch_size, row = down + line % c.patch_size;
            patches.row(p).segment(line * c.patch_size, c.patch_size) =
                images.row(p / c.patches())
                    .segment((channel * c.image_size + row) * c.image_size + right, c.patch_size);
        }
    }
    return patches;
}

} // namespace detent::inline DETENT_ABI

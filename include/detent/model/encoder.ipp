// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <map>
#include <span>
#include <string>
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
    auto const rows = position_rows(tokens, length);
    auto const check = [](index_t t, char const* what, index_t id, index_t vocabulary) {
        if (id < 0 || id >= vocabulary) {
            throw error("token " + std::to_string(t), std::string("has ") + what + " " + std::to_string(id) +
                                                          ", outside the vocabulary of " + std::to_string(vocabulary));
        }
    };
    matrix x(count, configuration.embedding_width); // (token, embedding_width)
    for (index_t t = 0; t < count; ++t) {
        index_t const id = tokens[static_cast<std::size_t>(t)];
        index_t const type = types.empty() ? 0 : types[static_cast<std::size_t>(t)];
        check(t, "id", id, configuration.vocabulary);
        check(t, "type", type, std::max<index_t>(1, configuration.token_types));
        x.row(t) = word_embeddings.row(id) + position_embeddings.row(rows[static_cast<std::size_t>(t)]);
        if (configuration.token_types > 0) {
            x.row(t) += token_type_embeddings.row(type);
        }
    }
    x = embedding_norm.forward(x, executor);
    return project_in ? project_in->forward(x, executor) : x;
}

DETENT_INLINE std::vector<index_t> text_encoder::position_rows(std::span<nn::token_id const> tokens,
                                                               index_t length) const {
    auto const& padding = configuration.padding;
    std::vector<index_t> rows;
    index_t counted = 0; // tokens of the sequence that have a position
    for (std::size_t t = 0; t < tokens.size(); ++t) {
        counted = static_cast<index_t>(t) % length == 0 ? 0 : counted;
        bool const pads = padding && tokens[t] == *padding;
        rows.push_back(pads ? *padding : configuration.position_offset + counted);
        counted += pads ? 0 : 1;
    }
    return rows;
}

DETENT_INLINE matrix text_encoder::forward(std::span<nn::token_id const> tokens, index_t sequences,
                                           executor_ref executor, std::span<nn::token_id const> types) const {
    matrix x = embed(tokens, sequences, executor, types);
    for (auto const& b : blocks) {
        x = detent::forward(b, x, {.sequences = sequences}, executor);
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
    auto const& c = configuration;
    index_t const n = c.patches();
    index_t const leading = position_embeddings.rows() - n; // tokens before the patches that have a position
    matrix const patches = patch_embedding.forward(cut(images), executor); // (image * patch, hidden)
    matrix x(images.rows() * c.tokens(), c.hidden);
    for (index_t i = 0; i < images.rows(); ++i) {
        auto image = x.middleRows(i * c.tokens(), c.tokens()); // (token, hidden)
        image.row(0) = class_token;
        if (c.extra_tokens > 0) {
            image.middleRows(1, c.extra_tokens) = extra_tokens;
        }
        image.bottomRows(n) = patches.middleRows(i * n, n);
        image.topRows(leading) += position_embeddings.topRows(leading);
        image.bottomRows(n) += position_embeddings.bottomRows(n);
    }
    return x;
}

DETENT_INLINE matrix image_encoder::forward(matrix_view images, executor_ref executor) const {
    matrix x = embed(images, executor);
    for (auto const& b : blocks) {
        x = detent::forward(b, x, {.sequences = images.rows()}, executor);
    }
    return x;
}

DETENT_INLINE matrix image_encoder::normalized(matrix_view hidden, executor_ref executor) const {
    return final_norm.forward(hidden, executor);
}

DETENT_INLINE matrix image_encoder::states_of(matrix_view hidden, index_t token) const {
    index_t const length = configuration.tokens();
    expect_valid(hidden.rows() % length == 0, "hidden states", "are not of whole sequences");
    matrix states(hidden.rows() / length, hidden.cols()); // (image, hidden)
    for (index_t i = 0; i < states.rows(); ++i) {
        states.row(i) = hidden.row(i * length + token);
    }
    return states;
}

DETENT_INLINE matrix image_encoder::logits(matrix_view hidden, executor_ref executor) const {
    auto const& c = configuration;
    if (!classifier) {
        throw error("model", "tells no classes, only hidden states");
    }
    matrix const first = normalized(states_of(hidden, 0), executor); // (image, hidden)
    if (c.readout == image_readout::class_token) {
        return classifier->forward(first, executor);
    }
    if (c.readout == image_readout::two_tokens) {
        matrix const second = normalized(states_of(hidden, 1), executor); // (image, hidden)
        return (classifier->forward(first, executor) + second_classifier->forward(second, executor)) / 2;
    }
    matrix const all = normalized(hidden, executor); // (image * token, hidden)
    matrix both(first.rows(), 2 * c.hidden);         // (image, class token and mean of patches)
    both.leftCols(c.hidden) = first;
    for (index_t i = 0; i < first.rows(); ++i) {
        both.row(i).rightCols(c.hidden) =
            all.middleRows((i + 1) * c.tokens() - c.patches(), c.patches()).colwise().mean();
    }
    return classifier->forward(both, executor);
}

DETENT_INLINE matrix image_encoder::cut(matrix_view images) const {
    auto const& c = configuration;
    if (images.cols() != c.pixels()) {
        throw error("images", "of " + std::to_string(images.cols()) +
                                  " numbers are of another size than the model's, " + std::to_string(c.image_size) +
                                  " x " + std::to_string(c.image_size) + " pixels in " + std::to_string(c.channels) +
                                  " channels; positions are not interpolated");
    }
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

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "detent/calibrate/quantize_encoder.hpp"
#include "detent/io/tokens.hpp"
#include "detent/model/load_encoder.hpp"

namespace detent::test {

/// Where a model is that cannot be part of this repository; it may be missing.
inline std::filesystem::path shared_model(std::string const& name) {
    return std::filesystem::path(DETENT_SHARED_DIR) / "models" / name;
}

/// Pairs of sentences and how alike people find them.
struct sentence_pairs {
    std::vector<std::vector<nn::token_id>> sentences; // the two of each pair, one after the other
    std::vector<double> scores;
};

/// Every `every`-th pair of the development part of STS-B.
inline sentence_pairs read_pairs(std::size_t every = 1) {
    sentence_pairs pairs;
    std::ifstream file(shared_model("all-MiniLM-L6-v2") / "stsb_dev.ids.jsonl");
    std::string line;
    for (std::size_t i = 0; std::getline(file, line); ++i) {
        if (i % every == 0) {
            auto const json = nlohmann::json::parse(line);
            pairs.sentences.push_back(json.at("a").get<std::vector<nn::token_id>>());
            pairs.sentences.push_back(json.at("b").get<std::vector<nn::token_id>>());
            pairs.scores.push_back(json.at("score").get<double>());
        }
    }
    return pairs;
}

/// The rank of each value, equal ones sharing the mean of theirs.
inline std::vector<double> ranks(std::vector<double> const& values) {
    std::vector<std::size_t> order(values.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::ranges::sort(order, {}, [&](std::size_t i) { return values[i]; });
    std::vector<double> result(values.size());
    for (std::size_t first = 0; first < order.size();) {
        std::size_t last = first;
        while (last < order.size() && values[order[last]] == values[order[first]]) {
            ++last;
        }
        for (std::size_t i = first; i < last; ++i) {
            result[order[i]] = static_cast<double>(first + last - 1) / 2;
        }
        first = last;
    }
    return result;
}

/// Spearman's rank correlation: that of Pearson between ranks.
inline double spearman(std::vector<double> const& a, std::vector<double> const& b) {
    auto const deviations = [](std::vector<double> const& values) {
        auto const r = ranks(values);
        Eigen::ArrayXd const numbers = Eigen::Map<Eigen::ArrayXd const>(r.data(), std::ssize(r));
        return Eigen::ArrayXd(numbers - numbers.mean());
    };
    Eigen::ArrayXd const x = deviations(a), y = deviations(b);
    return (x * y).sum() / std::sqrt(x.square().sum() * y.square().sum());
}

/// How well the cosines of the sentences of each pair go with their scores.
inline double spearman(text_encoder const& model, sentence_pairs const& pairs, executor_ref executor = {}) {
    matrix const embeddings = model.sentence_embeddings(pairs.sentences, executor); // (sentence, hidden)
    std::vector<double> cosines;
    for (index_t i = 0; i < embeddings.rows(); i += 2) {
        cosines.push_back(double(embeddings.row(i).dot(embeddings.row(i + 1))));
    }
    return spearman(cosines, pairs.scores);
}

/// Images as bytes and the class of each.
struct labelled_images {
    std::vector<std::uint8_t> bytes;
    std::vector<std::int32_t> labels;
};

/// The bytes of a file, at most `most`.
inline std::vector<std::uint8_t> read_bytes(std::filesystem::path const& path, std::size_t most) {
    auto const values = io::read_tokens(path); // of one byte
    std::vector<std::uint8_t> bytes;
    for (std::size_t i = 0; i < std::min(most, values.size()); ++i) {
        bytes.push_back(static_cast<std::uint8_t>(values[i]));
    }
    return bytes;
}

/// The first `count` test images of CIFAR-10.
inline labelled_images read_images(std::size_t count = 2000) {
    auto const directory = shared_model("vit-cifar10");
    labelled_images images{read_bytes(directory / "cifar10_test2000.hwc.u8", count * 32 * 32 * 3),
                           io::read_tokens(directory / "cifar10_test2000.labels.u8")};
    images.labels.resize(count);
    return images;
}

/// The first `count` training images of CIFAR-10, for calibration.
inline std::vector<std::uint8_t> read_training_images(std::size_t count = 512) {
    return read_bytes(shared_model("vit-cifar10") / "cifar10_train512.hwc.u8", count * 32 * 32 * 3);
}

/// How many images `model` puts in the right class.
inline index_t count_right(image_encoder const& model, labelled_images const& images, executor_ref executor = {}) {
    matrix const normalized = model.normalize(images.bytes); // (image, channel * row * column)
    index_t right = 0;
    for (index_t first = 0; first < normalized.rows(); first += 64) {
        matrix const some = normalized.middleRows(first, std::min<index_t>(64, normalized.rows() - first));
        matrix const logits = model.logits(model.forward(some, executor), executor); // (image, class)
        for (index_t i = 0; i < some.rows(); ++i) {
            index_t best = 0;
            logits.row(i).maxCoeff(&best);
            right += best == images.labels[static_cast<std::size_t>(first + i)];
        }
    }
    return right;
}

} // namespace detent::test

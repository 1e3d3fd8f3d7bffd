// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cmath>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "detent/nn/tokens.hpp"
#include "model/random_decoder.hpp"

namespace detent::test {

/// The cross entropy of a decoder in double, straight from its definition, and its derivatives by finite differences.
class reference_loss {
public:
    /// `weights` by name, with the prefix "".
    reference_loss(model_configuration configuration, std::map<std::string, matrix> weights,
                   std::vector<nn::token_id> tokens, index_t sequences)
        : configuration_(std::move(configuration)), weights_(std::move(weights)), tokens_(std::move(tokens)),
          sequences_(sequences) {}

    /// Summed over all tokens but the first of each sequence.
    double operator()() const {
        reference_decoder const model(configuration_, "", weights_);
        auto const length = std::ssize(tokens_) / sequences_;
        double loss = 0;
        for (index_t s = 0; s < sequences_; ++s) {
            std::vector<nn::token_id> const ids(tokens_.begin() + s * length, tokens_.begin() + (s + 1) * length);
            auto const logits = model.logits(ids);
            for (std::size_t t = 0; t + 1 < ids.size(); ++t) {
                double sum = 0;
                for (double const x : logits[t]) {
                    sum += std::exp(x);
                }
                loss += std::log(sum) - logits[t][static_cast<std::size_t>(ids[t + 1])];
            }
        }
        return loss;
    }

    /// The derivative with respect to one weight, from four points: its error is of fourth order in their distance.
    double derivative(std::string const& name, index_t row, index_t col) {
        float& w = weights_.at(name)(row, col);
        float const before = w;
        auto const slope = [&](float h) {
            w = before + h;
            double const high = w;
            double const loss_high = (*this)();
            w = before - h;
            double const low = w;
            double const loss = loss_high - (*this)();
            w = before;
            return loss / (high - low);
        };
        return (4 * slope(0x1p-9F) - slope(0x1p-8F)) / 3;
    }

private:
    model_configuration configuration_;
    std::map<std::string, matrix> weights_;
    std::vector<nn::token_id> tokens_;
    index_t sequences_;
};

} // namespace detent::test

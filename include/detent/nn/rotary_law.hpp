// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <memory>
#include <numbers>
#include <string>
#include <utility>
#include <vector>

#include "detent/core/error.hpp"
#include "detent/core/index.hpp"
#include "detent/nn/rope.hpp"

namespace detent::inline DETENT_ABI::nn {

/// How the frequencies of rotary positions follow from their base and the length of the context.
enum class rotary_kind {
    plain,       ///< base^(-2 i / dimensions)
    linear,      ///< all divided by the factor
    dynamic,     ///< NTK: a larger base where the sequence is longer than `max_positions`
    llama3,      ///< low frequencies divided by the factor, high ones kept, smooth between (Llama 3.1)
    yarn,        ///< the same by numbers of rotations, with a factor of sines and cosines (Peng et al., section 3.2)
    longrope,    ///< each divided by its own factor, one list for short and one for long sequences (Ding et al.)
    proportional ///< those of the whole head, the first `rotated` pairs only; the others stand still (Gemma 4)
};

/// A law of rotary frequencies, with the fields of `rope_parameters` in configurations of Hugging Face transformers 5.
/// Numbers that are not given are 0 and get the default of that library.
struct rotary_law {
    rotary_kind kind = rotary_kind::plain;
    double base = 10000;      ///< `rope_theta`
    index_t dimensions = 0;   ///< rotated features of a head, int(head_dim * partial_rotary_factor); proportional: all
    bool interleaved = false; ///< see `rotary`
    double factor = 0;        ///< yarn and longrope: max_positions / original_positions by default; else 1
    double attention_factor = 0;
    index_t max_positions = 0;      ///< `max_position_embeddings`: dynamic, yarn and longrope
    index_t original_positions = 0; ///< `original_max_position_embeddings`: llama3, yarn and longrope
    double low_freq_factor = 1;     ///< llama3
    double high_freq_factor = 4;    ///< llama3
    double beta_fast = 0;           ///< yarn: rotations in the original context above which a frequency stays; 32
    double beta_slow = 0;           ///< yarn: rotations below which it is divided by the factor; 1
    double mscale = 0;              ///< yarn
    double mscale_all_dim = 0;      ///< yarn
    bool truncate = true;           ///< yarn: the bounds between these become whole pairs
    std::vector<double> short_factor = {}; ///< longrope, one per pair
    std::vector<double> long_factor = {};  ///< longrope, one per pair: of sequences longer than `original_positions`
    index_t rotated = 0; ///< proportional: pairs that rotate, int(partial_rotary_factor * head_dim // 2)

    friend bool operator==(rotary_law const&, rotary_law const&) = default;
};

/// base^(-2 i / dimensions) for each pair i.
inline std::vector<double> plain_frequencies(double base, index_t dimensions) {
    std::vector<double> frequencies(static_cast<std::size_t>(dimensions / 2));
    for (index_t i = 0; i < dimensions / 2; ++i) {
        frequencies[static_cast<std::size_t>(i)] =
            std::pow(base, -2.0 * static_cast<double>(i) / static_cast<double>(dimensions));
    }
    return frequencies;
}

/// The frequency of Llama 3.1 that was `frequency`: with r rotations in the original context it is divided by the
/// factor where r < low_freq_factor, kept where r > high_freq_factor, and a mean of both, linear in r, between.
inline double llama3_frequency(rotary_law const& law, double factor, double frequency) {
    double const rotations = static_cast<double>(law.original_positions) * frequency / (2 * std::numbers::pi);
    double const kept =
        std::clamp((rotations - law.low_freq_factor) / (law.high_freq_factor - law.low_freq_factor), 0.0, 1.0);
    return (1 - kept) * frequency / factor + kept * frequency;
}

/// The frequencies of YaRN (Peng et al., definition 2): pairs that turn more than beta_fast times in the original
/// context are kept, those that turn less than beta_slow times are divided by the factor, with a ramp over pairs
/// between.
inline void make_yarn(rotary_law const& law, double factor, std::vector<double>& frequencies) {
    auto const dimensions = static_cast<double>(law.dimensions);
    auto const pair_of = [&](double rotations) { // that turns so often
        double const positions = static_cast<double>(law.original_positions);
        return dimensions * std::log(positions / (rotations * 2 * std::numbers::pi)) / (2 * std::log(law.base));
    };
    double low = pair_of(law.beta_fast > 0 ? law.beta_fast : 32), high = pair_of(law.beta_slow > 0 ? law.beta_slow : 1);
    if (law.truncate) {
        low = std::floor(low);
        high = std::ceil(high);
    }
    low = std::max(low, 0.0);
    high = std::min(high, dimensions - 1);
    double const width = low == high ? 0.001 : high - low; // no division by 0
    for (std::size_t i = 0; i < frequencies.size(); ++i) {
        double const divided = std::clamp((static_cast<double>(i) - low) / width, 0.0, 1.0);
        frequencies[i] = frequencies[i] / factor * divided + frequencies[i] * (1 - divided);
    }
}

/// What YaRN multiplies sines and cosines by (Peng et al., eq. 22, whose root is taken once for queries and once for
/// keys), unless `attention_factor` says it.
inline double yarn_attention_factor(rotary_law const& law, double factor) {
    auto const of = [&](double mscale) { return factor <= 1 ? 1.0 : 0.1 * mscale * std::log(factor) + 1; };
    return law.mscale != 0 && law.mscale_all_dim != 0 ? of(law.mscale) / of(law.mscale_all_dim) : of(1);
}

/// Throws where the numbers that `law` needs are not there.
inline void expect_rotary_law(rotary_law const& law) {
    auto const expect = [](bool is_right, char const* field, char const* problem) {
        if (!is_right) {
            raise(error(std::string("rope_parameters, field '") + field + "'", problem));
        }
    };
    using enum rotary_kind;
    bool const has_context = law.kind == llama3 || law.kind == yarn || law.kind == longrope;
    bool const may_divide = (law.kind == yarn || law.kind == longrope) && law.max_positions > 0;
    expect(law.base > 0, "rope_theta", "is not positive");
    expect(law.dimensions > 0 && law.dimensions % 2 == 0, "partial_rotary_factor",
           "leaves no even number of features to rotate");
    expect(!has_context || law.original_positions > 0, "original_max_position_embeddings", "is missing");
    expect(law.factor > 0 || law.kind == plain || law.kind == proportional || may_divide, "factor", "is missing");
    expect(law.kind != dynamic || (law.max_positions > 0 && law.dimensions > 2), "max_position_embeddings",
           "is missing, or there is one pair of features only");
    expect(law.kind != llama3 || law.high_freq_factor != law.low_freq_factor, "high_freq_factor",
           "is equal to low_freq_factor");
    if (law.kind == longrope) {
        std::size_t const pairs = static_cast<std::size_t>(law.dimensions / 2);
        expect(law.short_factor.size() == pairs, "short_factor", "has not one entry for each pair of features");
        expect(law.long_factor.size() == pairs, "long_factor", "has not one entry for each pair of features");
    }
}

/// The rotary positions of a sequence of `length` tokens, those in a cache included: only `dynamic` and `longrope`
/// depend on it, whose frequencies for all tokens change when a sequence outgrows its context. As in Hugging Face
/// transformers 5, but in double. @throws error naming the field of `rope_parameters` that is missing or wrong.
inline rotary rotary_of(rotary_law const& law, index_t length) {
    expect_rotary_law(law);
    double const stretched = law.original_positions > 0
                                 ? static_cast<double>(law.max_positions) / static_cast<double>(law.original_positions)
                                 : 1.0;
    bool const has_default = law.kind == rotary_kind::yarn || law.kind == rotary_kind::longrope;
    double const factor = law.factor > 0 ? law.factor : has_default ? stretched : 1.0;
    std::vector<double> frequencies = plain_frequencies(law.base, law.dimensions);
    double attention_factor = 1;
    switch (law.kind) {
    case rotary_kind::plain:
        break;
    case rotary_kind::proportional:
        std::fill(frequencies.begin() + std::min(law.rotated, law.dimensions / 2), frequencies.end(), 0.0);
        [[fallthrough]];
    case rotary_kind::linear:
        for (double& frequency : frequencies) {
            frequency /= factor;
        }
        break;
    case rotary_kind::dynamic: {
        double const ratio = static_cast<double>(std::max(length, law.max_positions)) / //
                             static_cast<double>(law.max_positions);
        auto const dimensions = static_cast<double>(law.dimensions);
        double const growth = std::pow(factor * ratio - (factor - 1), dimensions / (dimensions - 2));
        frequencies = plain_frequencies(law.base * growth, law.dimensions);
        break;
    }
    case rotary_kind::llama3:
        for (double& frequency : frequencies) {
            frequency = llama3_frequency(law, factor, frequency);
        }
        break;
    case rotary_kind::yarn:
        make_yarn(law, factor, frequencies);
        attention_factor = yarn_attention_factor(law, factor);
        break;
    case rotary_kind::longrope: {
        auto const& factors = length > law.original_positions ? law.long_factor : law.short_factor;
        for (std::size_t i = 0; i < frequencies.size(); ++i) {
            frequencies[i] /= factors[i];
        }
        attention_factor =
            factor <= 1 ? 1.0 : std::sqrt(1 + std::log(factor) / std::log(static_cast<double>(law.original_positions)));
        break;
    }
    }
    bool const given = has_default && law.attention_factor != 0;
    return rotary(std::move(frequencies), law.interleaved, given ? law.attention_factor : attention_factor);
}

/// Whether sequences of `a` and of `b` tokens have the same frequencies, so that keys of the one serve in the other.
inline bool same_frequencies(rotary_law const& law, index_t a, index_t b) {
    switch (law.kind) {
    case rotary_kind::dynamic:
        return std::max(a, law.max_positions) == std::max(b, law.max_positions);
    case rotary_kind::longrope:
        return (a > law.original_positions) == (b > law.original_positions);
    default:
        return true;
    }
}

/// The rotations of positions `start` .. `start + length - 1`, and maybe some more, of a sequence that ends there. The
/// calling thread keeps what it computed last of some laws: blocks of a model, and one token after another, share their
/// sines. Throws like `rotary_of`.
inline std::shared_ptr<rotation const> rotation_of(rotary_law const& law, index_t start, index_t length) {
    struct known {
        rotary_law law;
        index_t end = 0; // of the sequence
        std::shared_ptr<rotation const> rotations;
    };
    constexpr std::size_t laws = 4; // more than a model has
    constexpr index_t ahead = 64;   // positions that are computed at least
    thread_local std::vector<known> all;
    auto found = std::find_if(all.begin(), all.end(), [&](known const& k) {
        return k.law == law && same_frequencies(law, k.end, start + length);
    });
    if (found != all.end() && found->rotations->contains(start, length)) {
        return found->rotations;
    }
    auto made = std::make_shared<rotation const>(rotary_of(law, start + length).at(start, std::max(length, ahead)));
    if (found != all.end()) {
        all.erase(found);
    } else if (all.size() == laws) {
        all.erase(all.begin());
    }
    all.push_back({law, start + length, made});
    return made;
}

} // namespace detent::inline DETENT_ABI::nn

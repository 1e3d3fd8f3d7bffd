// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <array>
#include <charconv>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "detent/core/index.hpp"
#include "detent/quantizer/named_grid.hpp"
#include "detent/quantizer/spec.hpp"
#include "detent/scale/block_format.hpp"
#include "detent/scale/scale_format.hpp"
#include "detent/solver/metric_search.hpp"

// What a word of a specification is, and how its values are read. The words themselves are in vocabulary.hpp.

namespace detent::inline DETENT_ABI {

namespace vocabulary {

/// What a word needs of the rest of the specification.
struct need {
    bool (*met)(spec const&) = nullptr; ///< null: nothing is needed
    std::string_view says;              ///< the rest of a sentence that begins with the word
};

/// What a word means besides, where no other word of the specification names that.
struct preset {
    std::string_view noun = {}; ///< as in `word::once`; empty: there is none
    void (*sets)(spec&) = nullptr;
};

/// A word of specifications, or all words that begin alike. A word without a value is the whole part, and `sets` does
/// what it means. Where there are values, `value` is an example of one, and `reads` answers whether it understood what
/// follows the name. If it did not, `complaint` says what is wrong, or without a complaint the part may be another
/// word.
struct word {
    std::string_view name;
    std::string_view value = {};
    std::string_view help; ///< Markdown, without the end of a sentence
    void (*sets)(spec&) = nullptr;
    bool (*reads)(spec&, std::string_view) = nullptr;
    std::string_view complaint = {};
    std::array<std::string_view, 3> once = {}; ///< nouns for what it names, none of which has a second word
    std::array<need, 7> needs = {};
    preset otherwise = {};

    /// The word as an example has it.
    std::string example() const { return std::string(name) + std::string(value); }

    /// What sentences call it: its name without what separates the value.
    std::string_view called() const { return name.substr(0, name.find_last_not_of("=@") + 1); }

    /// Tells `s` what `part` means and answers true, or leaves `s` as it is if the part is not this word.
    bool accepts(spec& s, std::string_view part) const {
        if (value.empty() ? part != name : !part.starts_with(name)) {
            return false;
        }
        spec changed = s;
        if (value.empty()) {
            sets(changed);
        } else if (!reads(changed, part.substr(name.size()))) {
            return false;
        }
        s = std::move(changed);
        return true;
    }
};

/// Words about one thing.
struct section {
    std::string_view title;
    std::string_view note; ///< a paragraph of Markdown
    std::span<word const> words;
};

// Readers of values, which answer whether they understood them.

/// Reads a positive whole number.
inline bool read_number(std::string_view text, index_t& number) {
    char const* const last = text.data() + text.size();
    auto const [end, failure] = std::from_chars(text.data(), last, number);
    return failure == std::errc{} && end == last && number > 0;
}

/// Reads a number from `lowest` to `highest`.
inline bool read_real(std::string_view text, double lowest, double highest, double& number) {
    char const* const last = text.data() + text.size();
    auto const [end, failure] = std::from_chars(text.data(), last, number);
    return failure == std::errc{} && end == last && number >= lowest && number <= highest;
}

/// Reads the name of a grid that there is.
inline bool read_grid(std::string_view text, grid_name& grid) {
    grid = grid_name::parse(text);
    return visit_grid(grid, [](auto) {});
}

/// Reads the grid of weights, for which `sym` is a word of its own too.
inline bool read_weights(spec& s, std::string const& text) {
    bool const symmetric = s.grid.symmetric;
    bool const understood = read_grid(text, s.grid);
    s.grid.symmetric = s.grid.symmetric || symmetric;
    return understood;
}

/// Reads names of layers with a plus between them.
inline bool read_layers(spec& s, std::string_view text) {
    for (;;) {
        auto const plus = text.find('+');
        if (std::ranges::find(layer_names, text.substr(0, plus)) == layer_names.end()) {
            return false;
        }
        s.weak.layers.emplace_back(text.substr(0, plus));
        if (plus == text.npos) {
            return true;
        }
        text.remove_prefix(plus + 1);
    }
}

/// A `block_format` and the names of it and of its grid.
struct named_format {
    std::string_view name;
    std::string_view grid;
    index_t width = 0;
    scale_format scales;

    template <class Format> static constexpr named_format of(std::string_view name, std::string_view grid) {
        return {name, grid, Format::width, Format::format};
    }
};

inline constexpr std::array named_formats{
    named_format::of<mxfp4>("mxfp4", "e2m1"),
    named_format::of<mxfp6_e2m3>("mxfp6-e2m3", "e2m3"),
    named_format::of<mxfp6_e3m2>("mxfp6-e3m2", "e3m2"),
    named_format::of<mxfp8_e4m3>("mxfp8", "ocp-e4m3"),
    named_format::of<mxfp8_e5m2>("mxfp8-e5m2", "ocp-e5m2"),
    named_format::of<nvfp4>("nvfp4", "e2m1"),
};

/// Quantizes weights to the block format of that name.
inline bool read_block_format(spec& s, std::string_view text) {
    auto const found = std::ranges::find(named_formats, text, &named_format::name);
    if (found == named_formats.end()) {
        return false;
    }
    s.granularity = {1, found->width};
    s.format = found->scales;
    return read_weights(s, std::string(found->grid));
}

/// Quantizes weights to a grid in tiles of `width` inputs whose scales have two levels.
inline void read_super_blocks(spec& s, std::string_view grid, index_t width) {
    s.granularity = {1, width};
    s.format = float_format::f32;
    s.super_blocks = true;
    read_weights(s, std::string(grid));
}

/// Quantizes inputs to a block format.
inline bool read_input_block_format(spec& s, std::string_view text) {
    auto const found = std::ranges::find(named_formats, text, &named_format::name);
    if (found == named_formats.end()) {
        return false;
    }
    s.input.width = found->width;
    s.input.format = found->scales;
    return read_grid(found->grid, s.input.grid);
}

/// Quantizes inputs to the grid that `text` names before `ending`.
inline bool read_inputs(spec& s, std::string_view text, std::string_view ending) {
    return text.ends_with(ending) && read_grid(text.substr(0, text.size() - ending.size()), s.input.grid);
}

/// Reads the number of features in a block of a Walsh-Hadamard transform.
inline bool read_hadamard(spec& s, std::string_view text) {
    return read_number(text, s.hadamard) && s.hadamard >= 2 && s.hadamard <= 65536 &&
           (s.hadamard & (s.hadamard - 1)) == 0;
}

/// Reads how errors of outputs are measured.
inline bool read_metric(spec& s, std::string_view text) {
    struct named_metric {
        std::string_view name;
        output_metric metric;
    };
    constexpr std::array metrics{
        named_metric{"squares", output_metric::squares}, named_metric{"absolute", output_metric::absolute},
        named_metric{"weighted_squares", output_metric::weighted_squares},
        named_metric{"doubly_weighted", output_metric::doubly_weighted}, named_metric{"cosine", output_metric::cosine}};
    auto const found = std::ranges::find(metrics, text, &named_metric::name);
    if (found == metrics.end()) {
        return false;
    }
    s.metric = found->metric;
    return true;
}

} // namespace vocabulary

} // namespace detent::inline DETENT_ABI

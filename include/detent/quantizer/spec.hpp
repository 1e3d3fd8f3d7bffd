// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "detent/core/error.hpp"
#include "detent/granularity/granularity.hpp"
#include "detent/scale/tile_scale.hpp"
#include "detent/solver/asymmetric.hpp"
#include "detent/solver/obq.hpp"
#include "detent/solver/owq.hpp"
#include "detent/solver/weak_budget.hpp"

namespace detent::inline DETENT_ABI {

/// What the linear layers of a block are called in specifications, in the order of their roles.
inline constexpr std::array<std::string_view, 7> layer_names{"q", "k", "v", "o", "gate", "up", "down"};

/// A quantizer chosen at run time, for instance `int4:g128:gptq`. The parts are separated by colons, in any order:
///
/// | part                        | meaning                                                                      |
/// |-----------------------------|------------------------------------------------------------------------------|
/// | `int1` .. `int8`            | integers with a zero point; with `sym`, without                              |
/// | `e2m1`, `e3m0`, `e4m3`, ... | floating point of any split up to 8 bits; `fp4` is `e2m1`                    |
/// | `ocp-e4m3`, `ocp-e5m2`      | the same with OCP's reserved codes                                           |
/// | `nf4`, `ternary`            | codebooks                                                                    |
/// | `channel`, `tensor`         | one scale for each row (the default), or for the matrix                      |
/// | `g128`, `b32x32`            | one scale for 128 inputs of a row, or for a block of 32 x 32                 |
/// | `minmax`, `absmax`          | how scales are chosen; by default `minmax` with and `absmax` without a zero  |
/// | `mse`, `truncated`          | searched: GPTQ's way, and OWQ's, which is the default with weak columns      |
/// | `rtn`, `gptq`, `obq`        | the solver (default `rtn`)                                                   |
/// | `gptaq`, `qronos`           | GPTQ towards the output of the float model                                   |
/// | `act`, `static`, `stale`    | GPTQ's kin: activation order, static groups, the published code's stale ones |
/// | `damp=0.01`                 | all but `rtn`: damping relative to the mean diagonal element of the Hessian  |
/// | `strength=0.25`             | `gptaq`, `qronos`: how much of the correction is made                        |
/// | `zeros`                     | `obq`: weights that are 0 stay 0                                             |
/// | `owq@3.1`, `owq=4`          | weak columns, for 3.1 bits on average or 4 in a layer; solver `gptq` unless  |
/// |                             | another is named; stored as bf16 with `bf16`, else as f16                    |
/// | `in=q+k+v`                  | `owq`: only in these layers, of `q`, `k`, `v`, `o`, `gate`, `up`, `down`     |
/// | `by=activation`             | `owq`: chosen by the size of their inputs alone                              |
/// | `uncompensated`             | `owq`: weak columns stay as they are                                         |
/// | `published`                 | `owq@`: columns counted by OWQ's formula for OPT                             |
/// | `f16`, `bf16`, `f32`        | how scales are stored (default `f16`)                                        |
struct spec {
    enum class range_kind { automatic, absmax, minmax, mse, truncated };
    enum class solver_kind { rtn, gptq, obq, gptaq, qronos };

    /// Columns in high precision.
    struct weak_options {
        bool wanted = false;
        index_t columns = 0;             ///< in each layer, or
        double bits = 0;                 ///< of a weight on average; 0 where `columns` counts
        std::vector<std::string> layers; ///< where; everywhere if empty
        weak_rule rule = weak_rule::exact;
        sensitivity chosen_by = sensitivity::output_error;
        bool compensate = true;
    };

    std::string text; ///< as it was written
    std::string grid; ///< its name without `sym`
    bool symmetric = false;
    per_tile granularity;
    range_kind range = range_kind::automatic;
    solver_kind solver = solver_kind::rtn;
    gptq<> gptq_options;               ///< also of `gptaq` and `qronos`
    obq obq_options;
    std::optional<double> strength;    ///< of `gptaq` and `qronos`; their own default where none is named
    weak_options weak;
    float_format format = float_format::f16;

    /// Whether the solver must know what layers read in the float model.
    bool needs_float_stream() const { return solver == solver_kind::gptaq || solver == solver_kind::qronos; }

    /// Reads a specification. @throws error naming the part that is not understood.
    static spec parse(std::string_view text);

private:
    void read(std::string_view part);

    /// What of `text` has been read, to find contradictions.
    bool has_granularity_ = false;
    bool has_range_ = false;
    bool has_solver_ = false;
    bool has_format_ = false;
    bool has_gptq_option_ = false;
    bool has_damping_ = false;
    bool has_strength_ = false;
    bool has_weak_option_ = false;

    static bool read_number(std::string_view part, std::string_view prefix, index_t& number);
    static bool read_real(std::string_view part, double& number);
};

/// Reads `prefix` followed by a positive number.
inline bool spec::read_number(std::string_view part, std::string_view prefix, index_t& number) {
    if (!part.starts_with(prefix)) {
        return false;
    }
    char const* const last = part.data() + part.size();
    auto const [end, failure] = std::from_chars(part.data() + prefix.size(), last, number);
    return failure == std::errc{} && end == last && number > 0;
}

/// Reads a number that is not negative.
inline bool spec::read_real(std::string_view part, double& number) {
    char const* const last = part.data() + part.size();
    auto const [end, failure] = std::from_chars(part.data(), last, number);
    return failure == std::errc{} && end == last && number >= 0;
}

inline void spec::read(std::string_view part) {
    auto const unknown = [&](std::string const& why) {
        return error("specification '" + text + "'", why + " '" + std::string(part) + "'");
    };
    auto const once = [&](bool& given, char const* what) {
        if (std::exchange(given, true)) {
            throw unknown(std::string("names a second ") + what);
        }
    };
    using range_word = std::pair<std::string_view, range_kind>;
    using solver_word = std::pair<std::string_view, solver_kind>;
    using format_word = std::pair<std::string_view, float_format>;
    constexpr std::array ranges{range_word{"absmax", range_kind::absmax}, range_word{"minmax", range_kind::minmax},
                                range_word{"mse", range_kind::mse}, range_word{"truncated", range_kind::truncated}};
    constexpr std::array solvers{solver_word{"rtn", solver_kind::rtn}, solver_word{"gptq", solver_kind::gptq},
                                 solver_word{"obq", solver_kind::obq}, solver_word{"gptaq", solver_kind::gptaq},
                                 solver_word{"qronos", solver_kind::qronos}};
    constexpr std::array formats{format_word{"f16", float_format::f16}, format_word{"bf16", float_format::bf16},
                                 format_word{"f32", float_format::f32}};
    auto const choose = [&](auto const& words, auto& chosen) {
        auto const word = std::ranges::find_if(words, [&](auto const& w) { return w.first == part; });
        if (word == words.end()) {
            return false;
        }
        chosen = word->second;
        return true;
    };
    index_t rows = 0;
    index_t cols = 0;
    if (auto const x = part.find('x');
        read_number(part, "g", cols) ||
        (x != part.npos && read_number(part.substr(0, x), "b", rows) && read_number(part.substr(x), "x", cols))) {
        once(has_granularity_, "granularity,");
        granularity = {std::max<index_t>(rows, 1), cols};
    } else if (part == "channel") {
        once(has_granularity_, "granularity,");
        granularity = {1, 0};
    } else if (part == "tensor") {
        once(has_granularity_, "granularity,");
        granularity = {0, 0};
    } else if (part == "sym") {
        symmetric = true;
    } else if (choose(ranges, range)) {
        once(has_range_, "range,");
    } else if (choose(solvers, solver)) {
        once(has_solver_, "solver,");
    } else if (choose(formats, format)) {
        once(has_format_, "format of scales,");
    } else if (part == "act") {
        has_gptq_option_ = gptq_options.activation_order = true;
    } else if (part == "static") {
        has_gptq_option_ = gptq_options.static_groups = true;
    } else if (part == "stale") {
        gptq_options.stale_columns = 128;
        has_gptq_option_ = true;
    } else if (part == "zeros") {
        obq_options.keep_zeros = true;
    } else if (part.starts_with("owq@")) {
        once(weak.wanted, "number of weak columns,");
        if (!read_real(part.substr(4), weak.bits) || !(weak.bits > 0 && weak.bits < 16)) {
            throw unknown("not a number of bits:");
        }
    } else if (part.starts_with("owq=")) {
        once(weak.wanted, "number of weak columns,");
        if (!read_number(part, "owq=", weak.columns)) {
            throw unknown("not a number of columns:");
        }
    } else if (part.starts_with("in=")) {
        if (!weak.layers.empty()) {
            throw unknown("names a second list of layers,");
        }
        has_weak_option_ = true;
        for (auto rest = part.substr(3);;) {
            auto const plus = rest.find('+');
            if (std::ranges::find(layer_names, rest.substr(0, plus)) == layer_names.end()) {
                throw unknown("not among q, k, v, o, gate, up, down:");
            }
            weak.layers.emplace_back(rest.substr(0, plus));
            if (plus == rest.npos) {
                break;
            }
            rest.remove_prefix(plus + 1);
        }
    } else if (part == "by=activation") {
        weak.chosen_by = sensitivity::activation;
        has_weak_option_ = true;
    } else if (part == "uncompensated") {
        weak.compensate = false;
        has_weak_option_ = true;
    } else if (part == "published") {
        weak.rule = weak_rule::published;
        has_weak_option_ = true;
    } else if (part.starts_with("damp=")) {
        once(has_damping_, "damping,");
        if (!read_real(part.substr(5), gptq_options.damping) || gptq_options.damping > 100) {
            throw unknown("not a damping between 0 and 100:");
        }
        obq_options.damping = gptq_options.damping;
    } else if (part.starts_with("strength=")) {
        once(has_strength_, "strength,");
        if (!read_real(part.substr(9), strength.emplace()) || *strength > 1) {
            throw unknown("not a strength between 0 and 1:");
        }
    } else if (grid.empty() && !part.empty()) {
        grid = part == "fp4" ? "e2m1" : part;
    } else {
        throw unknown(part.empty() ? "empty part" : "unknown part");
    }
}

inline spec spec::parse(std::string_view text) {
    spec s;
    s.text = text;
    for (std::string_view rest = text;;) {
        auto const colon = rest.find(':');
        s.read(rest.substr(0, colon));
        if (colon == rest.npos) {
            break;
        }
        rest.remove_prefix(colon + 1);
    }
    if (s.grid.empty()) {
        throw error("specification '" + s.text + "'", "names no grid, such as int4, e2m1 or nf4");
    }
    if (s.weak.wanted && !s.has_solver_) {
        s.solver = solver_kind::gptq;
    }
    bool const corrects = s.needs_float_stream();
    auto const need = [&](bool option, bool possible, char const* what) {
        if (option && !possible) {
            throw error("specification '" + s.text + "'", what);
        }
    };
    need(s.has_gptq_option_, s.solver == solver_kind::gptq || corrects, "act, static and stale need gptq or its kin");
    need(s.has_damping_, s.solver != solver_kind::rtn, "damp needs a solver other than rtn");
    need(s.strength.has_value(), corrects, "strength needs gptaq or qronos");
    need(s.has_weak_option_, s.weak.wanted, "in, by, uncompensated and published need owq");
    need(s.weak.rule == weak_rule::published, s.weak.bits > 0, "published needs owq@ and a number of bits");
    need(s.obq_options.keep_zeros, s.solver == solver_kind::obq, "zeros needs obq");
    return s;
}

} // namespace detent::inline DETENT_ABI

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
#include "detent/quantizer/named_grid.hpp"
#include "detent/scale/tile_scale.hpp"
#include "detent/solver/asymmetric.hpp"
#include "detent/solver/obq.hpp"
#include "detent/solver/metric_search.hpp"
#include "detent/solver/owq.hpp"
#include "detent/solver/weak_budget.hpp"
#include "detent/transform/learning.hpp"

namespace detent::inline DETENT_ABI {

/// What linear layers are called in specifications, in the order of their roles: those of a block and the output head.
inline constexpr std::array<std::string_view, 8> layer_names{"q", "k", "v", "o", "gate", "up", "down", "head"};

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
/// | `minmax`, `absmax`          | how scales are chosen; by default `minmax` with and `absmax` without a zero, |
/// |                             | but least squares for `int1:sym`                                             |
/// | `mse`, `truncated`          | searched: GPTQ's way, and OWQ's, which is the default with weak columns      |
/// | `rtn`, `gptq`, `obq`        | the solver (default `rtn`)                                                   |
/// | `gptaq`, `qronos`           | GPTQ towards the output of the float model                                   |
/// | `act`, `static`, `stale`    | GPTQ's kin: activation order, static groups, the published code's stale ones |
/// | `damp=0.01`                 | all but `rtn`: damping relative to the mean diagonal element of the Hessian  |
/// | `strength=0.25`             | `gptaq`, `qronos`: how much of the correction is made                        |
/// | `zeros`                     | `obq`: weights that are 0 stay 0                                             |
/// | `a=int8`, `a=e2m1`, ...     | the inputs of layers are quantized too, `intNsym` without a zero point: each |
/// |                             | token with a range of its own or, `a=int8@tensor`, all with one from the     |
/// |                             | calibration text                                                             |
/// | `search`                    | ranges by the error of layers' outputs, of weights and of inputs that share  |
/// |                             | one; `fp4`, `fp6` and `fp8` then are any split of so many bits (LLM-FP4)     |
/// | `fpq`                       | the same, and the features of inputs are shifted by powers of two            |
/// | `fold`                      | `fpq`: shifts are shared by the layers that read the same and folded into    |
/// |                             | the block where that is possible; the weights are searched after it          |
/// | `lwc`                       | how far ranges are clipped is learned, block by block (OmniQuant)            |
/// | `let`                       | so are scales of the channels between layers, folded into the weights, and,  |
/// |                             | where inputs are quantized and norms have biases, shifts of them             |
/// | `let=down`                  | scales of the channels between up and down too                               |
/// | `omniquant`                 | `lwc`, `let`, `aug`, `epochs` and `alpha` as OmniQuant was published with    |
/// |                             | them for these bits and the family of the model                              |
/// | `aug`, `epochs=40`, ...     | `lwc`, `let`: the auxiliary loss too; passes over the text (20);             |
/// | `alpha=0.75`, `p=8`         | exponent of activations in the first scales (0.5); bits of the probabilities |
/// |                             | of attention, which are not rounded otherwise                                |
/// | `paper`                     | `search`, `fpq`: the exponent biases LLM-FP4 tries, not evenly spaced ranges |
/// | `metric=absolute`, ...      | `search`, `fpq`: of inputs with one range; `squares`, `absolute`,            |
/// |                             | `weighted_squares`, `doubly_weighted` or `cosine` (`output_metric`)          |
/// | `e=fp4`                     | embeddings are quantized to this grid, and the output head like all layers   |
/// | `owq@3.1`, `owq=4`          | weak columns, for 3.1 bits on average or 4 in a layer; solver `gptq` unless  |
/// |                             | another is named; stored as bf16 with `bf16`, else as f16                    |
/// | `in=q+k+v`                  | `owq`: only in these layers, of `q`, `k`, `v`, `o`, `gate`, `up`, `down`     |
/// | `by=activation`             | `owq`: chosen by the size of their inputs alone                              |
/// | `uncompensated`             | `owq`: weak columns stay as they are                                         |
/// | `published`                 | `owq@`: columns counted by OWQ's formula for OPT                             |
/// | `f16`, `bf16`, `f32`        | how scales are stored (default `f16`)                                        |
/// | `scale=e8m0`, `scale=e4m3`  | in 8 bits: as powers of two, or E4M3 in units of a float for the matrix      |
/// | `mxfp4`, `nvfp4`            | `e2m1:g32:scale=e8m0` (OCP MX), and `e2m1:g16:scale=e4m3`                    |
/// | `mxfp6-e2m3`, `mxfp6-e3m2`, | the others of OCP MX: `e2m3`, `e3m2`, `ocp-e4m3` and `ocp-e5m2` with         |
/// | `mxfp8`, `mxfp8-e5m2`       | `g32:scale=e8m0`                                                             |
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

    /// How the inputs of layers are quantized.
    struct input_options {
        grid_name grid;       ///< without a name they are not
        bool dynamic = true;  ///< each token has its own range
        bool shifted = false; ///< features are shifted by powers of two
        bool folded = false;  ///< which are folded into the weights before

        /// Whether they have one range for all tokens.
        bool fixed() const { return !grid.name.empty() && !dynamic; }
    };

    std::string text; ///< as it was written
    grid_name grid;
    input_options input;
    bool search = false;        ///< ranges, and formats that have a choice, by the error of the output
    range_candidates candidates;
    output_metric metric = output_metric::squares;
    grid_name embeddings;       ///< without a name they stay as they are
    per_tile granularity;
    range_kind range = range_kind::automatic;
    solver_kind solver = solver_kind::rtn;
    gptq<> gptq_options;               ///< also of `gptaq` and `qronos`
    obq obq_options;
    std::optional<double> strength;    ///< of `gptaq` and `qronos`; their own default where none is named
    weak_options weak;
    scale_format format;               ///< of scales
    struct learning learning;          ///< of how each block of a model is quantized

    /// Whether the solver must know what layers read in the float model.
    bool needs_float_stream() const {
        return !reads_floats() && (solver == solver_kind::gptaq || solver == solver_kind::qronos);
    }

    /// Whether the layers are shown the inputs they have in the float model, all of them, as LLM-FP4 does.
    bool reads_floats() const { return search || input.fixed(); }

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
    bool has_input_range_ = false;
    bool has_metric_ = false;
    bool has_learning_option_ = false;

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
    using format_word = std::pair<std::string_view, scale_format>;
    constexpr std::array ranges{range_word{"absmax", range_kind::absmax}, range_word{"minmax", range_kind::minmax},
                                range_word{"mse", range_kind::mse}, range_word{"truncated", range_kind::truncated}};
    constexpr std::array solvers{solver_word{"rtn", solver_kind::rtn}, solver_word{"gptq", solver_kind::gptq},
                                 solver_word{"obq", solver_kind::obq}, solver_word{"gptaq", solver_kind::gptaq},
                                 solver_word{"qronos", solver_kind::qronos}};
    constexpr std::array formats{format_word{"f16", float_format::f16}, format_word{"bf16", float_format::bf16},
                                 format_word{"f32", float_format::f32},
                                 format_word{"scale=e8m0", scale_kind::e8m0},
                                 format_word{"scale=e4m3", scale_kind::ue4m3}};
    struct composed {
        std::string_view grid;
        index_t width;
        scale_format format;
    };
    using composed_word = std::pair<std::string_view, composed>;
    constexpr std::array composed_words{composed_word{"mxfp4", {"e2m1", 32, scale_kind::e8m0}},
                                        composed_word{"mxfp6-e2m3", {"e2m3", 32, scale_kind::e8m0}},
                                        composed_word{"mxfp6-e3m2", {"e3m2", 32, scale_kind::e8m0}},
                                        composed_word{"mxfp8", {"ocp-e4m3", 32, scale_kind::e8m0}},
                                        composed_word{"mxfp8-e5m2", {"ocp-e5m2", 32, scale_kind::e8m0}},
                                        composed_word{"nvfp4", {"e2m1", 16, scale_kind::ue4m3}}};
    auto const choose = [&](auto const& words, auto& chosen) {
        auto const word = std::ranges::find_if(words, [&](auto const& w) { return w.first == part; });
        if (word == words.end()) {
            return false;
        }
        chosen = word->second;
        return true;
    };
    composed named;
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
        grid.symmetric = true;
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
    } else if (part.starts_with("a=")) {
        if (!input.grid.name.empty()) {
            throw unknown("names a second grid of inputs,");
        }
        auto const at = part.find('@');
        input.grid = grid_name::parse(part.substr(2, at == part.npos ? at : at - 2));
        auto const shared_by = at == part.npos ? "@token" : part.substr(at);
        if (input.grid.name.empty() || (shared_by != "@token" && shared_by != "@tensor")) {
            throw unknown("not a grid, @token or @tensor:");
        }
        input.dynamic = shared_by == "@token";
        has_input_range_ = at != part.npos;
    } else if (part.starts_with("e=")) {
        if (!embeddings.name.empty()) {
            throw unknown("names a second grid of embeddings,");
        }
        embeddings = grid_name::parse(part.substr(2));
        if (embeddings.name.empty()) {
            throw unknown("names no grid:");
        }
    } else if (part == "lwc") {
        learning.clip = true;
    } else if (part == "let" || part == "let=down") {
        learning.transform = true;
        learning.hidden = part != "let";
    } else if (part == "omniquant") {
        learning.published = true;
    } else if (part == "aug") {
        learning.auxiliary = has_learning_option_ = true;
    } else if (part.starts_with("p=")) {
        index_t bits = 0;
        if (!read_number(part, "p=", bits) || bits < 2 || bits > 8) {
            throw unknown("not 2 to 8 bits:");
        }
        learning.probability_bits = static_cast<int>(bits);
        has_learning_option_ = true;
    } else if (part.starts_with("epochs=")) {
        if (!read_number(part, "epochs=", learning.epochs)) {
            throw unknown("not a number of epochs:");
        }
        has_learning_option_ = true;
    } else if (part.starts_with("alpha=")) {
        if (!read_real(part.substr(6), learning.alpha) || learning.alpha > 1) {
            throw unknown("not between 0 and 1:");
        }
        has_learning_option_ = true;
    } else if (part == "search" || part == "fpq") {
        once(search, "search,");
        input.shifted = part == "fpq";
    } else if (part.starts_with("metric=")) {
        once(has_metric_, "metric,");
        using metric_word = std::pair<std::string_view, output_metric>;
        constexpr std::array metrics{metric_word{"metric=squares", output_metric::squares},
                                     metric_word{"metric=absolute", output_metric::absolute},
                                     metric_word{"metric=weighted_squares", output_metric::weighted_squares},
                                     metric_word{"metric=doubly_weighted", output_metric::doubly_weighted},
                                     metric_word{"metric=cosine", output_metric::cosine}};
        if (!choose(metrics, metric)) {
            throw unknown("not a metric:");
        }
    } else if (part == "fold") {
        input.folded = true;
    } else if (part == "paper") {
        candidates.spaced = range_candidates::spacing::bias;
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
    } else if (grid.name.empty() && choose(composed_words, named)) {
        once(has_granularity_, "granularity,");
        once(has_format_, "format of scales,");
        grid.name = named.grid;
        granularity = {1, named.width};
        format = named.format;
    } else if (grid.name.empty() && !part.empty()) {
        bool const symmetric = grid.symmetric;
        grid = grid_name::parse(part);
        grid.symmetric = grid.symmetric || symmetric;
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
    if (s.grid.name.empty()) {
        throw error("specification '" + s.text + "'", "names no grid, such as int4, e2m1 or nf4");
    }
    if (s.weak.wanted && !s.has_solver_) {
        s.solver = solver_kind::gptq;
    }
    if (s.search && !s.has_input_range_) {
        s.input.dynamic = false;
    }
    bool const corrects = s.solver == solver_kind::gptaq || s.solver == solver_kind::qronos;
    auto const need = [&](bool option, bool possible, char const* what) {
        if (option && !possible) {
            throw error("specification '" + s.text + "'", what);
        }
    };
    need(s.has_gptq_option_, s.solver == solver_kind::gptq || corrects, "act, static and stale need gptq or its kin");
    need(s.has_damping_, s.solver != solver_kind::rtn, "damp needs a solver other than rtn");
    need(s.strength.has_value(), corrects, "strength needs gptaq or qronos");
    need(s.has_weak_option_, s.weak.wanted, "in, by, uncompensated and published need owq");
    need(s.input.shifted, s.input.fixed(), "fpq needs inputs with one range, such as a=fp4");
    need(s.input.folded, s.input.shifted, "fold needs fpq");
    need(s.has_metric_, s.search && s.input.fixed(), "metric needs search or fpq, and inputs with one range");
    need(s.candidates.spaced == range_candidates::spacing::bias, s.search, "paper needs search or fpq");
    need(s.weak.rule == weak_rule::published, s.weak.bits > 0, "published needs owq@ and a number of bits");
    need(s.has_learning_option_, static_cast<bool>(s.learning), "aug, p, epochs and alpha need lwc, let or omniquant");
    need(s.learning.published,
         !s.learning.clip && !s.learning.transform && !s.learning.auxiliary && s.learning.alpha == 0.5,
         "omniquant chooses lwc, let, aug and alpha itself, which must not be given");
    need(static_cast<bool>(s.learning), !s.search && !s.input.fixed() && s.granularity.rows == 1,
         "lwc and let need scales of rows or groups, and inputs whose tokens have their own");
    need(static_cast<bool>(s.learning), s.range == range_kind::automatic, "lwc and let choose ranges themselves");
    need(static_cast<bool>(s.learning), s.format.kind != scale_kind::e8m0 && s.format.kind != scale_kind::ue4m3,
         "lwc and let need scales of 16 bits or more");
    need(s.obq_options.keep_zeros, s.solver == solver_kind::obq, "zeros needs obq");
    return s;
}

} // namespace detent::inline DETENT_ABI

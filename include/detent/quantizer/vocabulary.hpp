// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <array>
#include <string>
#include <string_view>

#include "detent/quantizer/spec.hpp"
#include "detent/quantizer/word.hpp"
#include "detent/scale/scale_format.hpp"

// All words of specifications. The parser and its checks (parse_spec.hpp), the help of programs and
// docs/specification.md (vocabulary_text.hpp) are made from these tables, so a new word is a new entry. The file is long
// because all words are in one place.

// This file is longer than others so that there is one place for all words, which the parser, its checks, the help and
// the documentation read.
namespace detent::inline DETENT_ABI {

namespace vocabulary {

// Needs that several words have.

inline constexpr need gptq_or_kin{[](spec const& s) {
                                      return s.solver == spec::solver_kind::gptq ||
                                             s.solver == spec::solver_kind::gptaq ||
                                             s.solver == spec::solver_kind::qronos;
                                  },
                                  "needs gptq or its kin, gptaq and qronos"};
inline constexpr need weak_columns{[](spec const& s) { return s.weak.wanted; }, "needs owq"};
inline constexpr need any_search{[](spec const& s) { return s.search; }, "needs search or fpq"};
inline constexpr need scaled_inputs{[](spec const& s) { return s.input.shifted || s.smooth || s.power_of_two; },
                                    "needs fpq, smooth or shifts"};
inline constexpr need unmapped_inputs{
    [](spec const& s) { return ((!s.smooth && !s.power_of_two) || s.input.folded) && s.hadamard == 0; },
    "may not stand beside hadamard, nor beside smooth or shifts that are not folded"};
inline constexpr need any_learning{[](spec const& s) { return static_cast<bool>(s.learning); },
                                   "needs lwc, let or omniquant"};
inline constexpr need no_search{[](spec const& s) { return !s.search; }, "may not stand beside search or fpq"};
inline constexpr need alone{[](spec const& s) { return !s.learning && !s.search; },
                            "may not stand beside lwc, let, omniquant, search or fpq"};
inline constexpr need rows_or_groups{[](spec const& s) { return s.granularity.rows == 1; },
                                     "needs scales of rows or groups"};
inline constexpr need inputs_by_tokens{[](spec const& s) { return !s.input.fixed(); },
                                       "needs inputs whose tokens have ranges of their own"};
inline constexpr need own_ranges{[](spec const& s) { return s.range == spec::range_kind::automatic; },
                                 "chooses ranges itself, which must not be given"};
inline constexpr need precise_scales{
    [](spec const& s) { return s.format.kind != scale_kind::e8m0 && s.format.kind != scale_kind::ue4m3; },
    "needs scales of 16 bits or more"};
inline constexpr std::array<need, 7> needs_of_super_blocks{
    own_ranges, alone,
    need{[](spec const& s) { return !s.clip && !s.weak.wanted; }, "may not stand beside clip or owq"},
    need{[](spec const& s) { return s.solver != spec::solver_kind::gptaq && s.solver != spec::solver_kind::qronos; },
         "needs rtn, gptq or obq"}};
inline constexpr std::array<need, 7> needs_of_learning{rows_or_groups, inputs_by_tokens, precise_scales,
                                                       no_search,      own_ranges,       unmapped_inputs};

inline constexpr std::array grids{
    word{.name = "int",
         .value = "4",
         .help = "integers with a zero point, `int1` to `int8`; `int4sym` is `int4:sym`",
         .reads = [](spec& s, std::string_view bits) { return read_weights(s, "int" + std::string(bits)); },
         .once = {"grid"}},
    word{.name = "sym", .help = "integers have no zero point", .sets = [](spec& s) { s.grid.symmetric = true; }},
    word{.name = "e",
         .value = "2m1",
         .help =
             "floating point with a sign and so many bits of exponent and of mantissa, such as `e3m0`; 8 bits at most",
         .reads = [](spec& s, std::string_view split) { return read_weights(s, "e" + std::string(split)); },
         .once = {"grid"}},
    word{.name = "fp",
         .value = "4",
         .help = "floating point of 4, 6 or 8 bits: `e2m1`, `e3m2` or `e4m3`, and with a search any split",
         .reads = [](spec& s, std::string_view bits) { return read_weights(s, "fp" + std::string(bits)); },
         .once = {"grid"}},
    word{.name = "ocp-",
         .value = "e4m3",
         .help = "`ocp-e4m3` and `ocp-e5m2`: floating point with OCP's reserved codes",
         .reads = [](spec& s, std::string_view split) { return read_weights(s, "ocp-" + std::string(split)); },
         .once = {"grid"}},
    word{.name = "nf4",
         .help = "the codebook of QLoRA",
         .sets = [](spec& s) { read_weights(s, "nf4"); },
         .once = {"grid"}},
    word{.name = "ternary",
         .help = "-1, 0 and 1",
         .sets = [](spec& s) { read_weights(s, "ternary"); },
         .once = {"grid"}},
    word{.name = "mxfp4",
         .help = "of OCP MX: `e2m1:g32:scale=e8m0`",
         .sets = [](spec& s) { read_block_format(s, "mxfp4"); },
         .once = {"grid", "granularity", "format of scales"}},
    word{.name = "mxfp6-e2m3",
         .help = "of OCP MX: `e2m3:g32:scale=e8m0`",
         .sets = [](spec& s) { read_block_format(s, "mxfp6-e2m3"); },
         .once = {"grid", "granularity", "format of scales"}},
    word{.name = "mxfp6-e3m2",
         .help = "of OCP MX: `e3m2:g32:scale=e8m0`",
         .sets = [](spec& s) { read_block_format(s, "mxfp6-e3m2"); },
         .once = {"grid", "granularity", "format of scales"}},
    word{.name = "mxfp8",
         .help = "of OCP MX: `ocp-e4m3:g32:scale=e8m0`",
         .sets = [](spec& s) { read_block_format(s, "mxfp8"); },
         .once = {"grid", "granularity", "format of scales"}},
    word{.name = "mxfp8-e5m2",
         .help = "of OCP MX: `ocp-e5m2:g32:scale=e8m0`",
         .sets = [](spec& s) { read_block_format(s, "mxfp8-e5m2"); },
         .once = {"grid", "granularity", "format of scales"}},
    word{.name = "nvfp4",
         .help = "of NVIDIA: `e2m1:g16:scale=e4m3`",
         .sets = [](spec& s) { read_block_format(s, "nvfp4"); },
         .once = {"grid", "granularity", "format of scales"}},
    word{.name = "q2_k",
         .help =
             "of llama.cpp: `int2:g16` with scales of two levels, small integers times an f16 number for 256 inputs",
         .sets = [](spec& s) { read_super_blocks(s, "int2", 16); },
         .once = {"grid", "granularity", "format of scales"},
         .needs = needs_of_super_blocks},
    word{
        .name = "q3_k",
        .help =
            "of llama.cpp: `int3:sym:g16` with scales of two levels, small integers times an f16 number for 256 inputs",
        .sets = [](spec& s) { read_super_blocks(s, "int3sym", 16); },
        .once = {"grid", "granularity", "format of scales"},
        .needs = needs_of_super_blocks},
    word{.name = "q4_k",
         .help =
             "of llama.cpp: `int4:g32` with scales of two levels, small integers times an f16 number for 256 inputs",
         .sets = [](spec& s) { read_super_blocks(s, "int4", 32); },
         .once = {"grid", "granularity", "format of scales"},
         .needs = needs_of_super_blocks},
    word{.name = "q5_k",
         .help =
             "of llama.cpp: `int5:g32` with scales of two levels, small integers times an f16 number for 256 inputs",
         .sets = [](spec& s) { read_super_blocks(s, "int5", 32); },
         .once = {"grid", "granularity", "format of scales"},
         .needs = needs_of_super_blocks},
    word{
        .name = "q6_k",
        .help =
            "of llama.cpp: `int6:sym:g16` with scales of two levels, small integers times an f16 number for 256 inputs",
        .sets = [](spec& s) { read_super_blocks(s, "int6sym", 16); },
        .once = {"grid", "granularity", "format of scales"},
        .needs = needs_of_super_blocks},
};

inline constexpr std::array granularities{
    word{.name = "channel",
         .help = "one scale for each row, which is the default",
         .sets =
             [](spec& s) {
                 s.granularity = per_tile{1, 0};
             },
         .once = {"granularity"}},
    word{.name = "tensor",
         .help = "one scale for the matrix",
         .sets =
             [](spec& s) {
                 s.granularity = per_tile{0, 0};
             },
         .once = {"granularity"}},
    word{.name = "g",
         .value = "128",
         .help = "one scale for so many inputs of a row",
         .reads =
             [](spec& s, std::string_view width) {
                 s.granularity.rows = 1;
                 return read_number(width, s.granularity.cols);
             },
         .once = {"granularity"}},
    word{.name = "b",
         .value = "32x32",
         .help = "one scale for a block of so many rows and columns",
         .reads =
             [](spec& s, std::string_view shape) {
                 auto const x = std::min(shape.find('x'), shape.size());
                 return read_number(shape.substr(0, x), s.granularity.rows) &&
                        read_number(shape.substr(std::min(x + 1, shape.size())), s.granularity.cols);
             },
         .once = {"granularity"}},
};

inline constexpr std::array ranges{
    word{.name = "minmax",
         .help = "from the smallest to the largest weight, which is the default of grids with a zero point",
         .sets = [](spec& s) { s.range = spec::range_kind::minmax; },
         .once = {"range"}},
    word{.name = "absmax",
         .help =
             "as far as the largest magnitude on both sides, which is the default of the other grids but `int1:sym`, "
             "which gets least squares",
         .sets = [](spec& s) { s.range = spec::range_kind::absmax; },
         .once = {"range"}},
    word{.name = "mse",
         .help = "searched for the smallest error of the weights, as GPTQ does",
         .sets = [](spec& s) { s.range = spec::range_kind::mse; },
         .once = {"range"}},
    word{.name = "truncated",
         .help = "searched over width and zero point, as OWQ does, which is the default with weak columns",
         .sets = [](spec& s) { s.range = spec::range_kind::truncated; },
         .once = {"range"}},
    word{.name = "clip",
         .help = "how far the range of each tile is clipped is learned for each layer by itself, by the error of its "
                 "output (OmniQuant's LWC on one matrix)",
         .sets = [](spec& s) { s.clip = true; },
         .needs = {precise_scales, alone, own_ranges}},
    word{.name = "f16",
         .help = "scales are stored in 16 bits, which is the default",
         .sets = [](spec& s) { s.format = float_format::f16; },
         .once = {"format of scales"}},
    word{.name = "bf16",
         .help = "scales, and weak columns, are stored as bfloat16",
         .sets = [](spec& s) { s.format = float_format::bf16; },
         .once = {"format of scales"}},
    word{.name = "f32",
         .help = "scales are stored in 32 bits",
         .sets = [](spec& s) { s.format = float_format::f32; },
         .once = {"format of scales"}},
    word{.name = "scale=e8m0",
         .help = "scales are powers of two, stored in 8 bits",
         .sets = [](spec& s) { s.format = scale_kind::e8m0; },
         .once = {"format of scales"}},
    word{.name = "scale=e4m3",
         .help = "scales are stored in 8 bits as E4M3, in units of a float for the matrix",
         .sets = [](spec& s) { s.format = scale_kind::ue4m3; },
         .once = {"format of scales"}},
};

inline constexpr std::array solvers{
    word{.name = "rtn",
         .help = "rounding to the nearest, which is the default",
         .sets = [](spec& s) { s.solver = spec::solver_kind::rtn; },
         .once = {"solver"}},
    word{.name = "gptq",
         .help = "column after column, whose errors the columns that follow make up for",
         .sets = [](spec& s) { s.solver = spec::solver_kind::gptq; },
         .once = {"solver"}},
    word{.name = "obq",
         .help = "in every row the weight that costs least first, whose error all others make up for",
         .sets = [](spec& s) { s.solver = spec::solver_kind::obq; },
         .once = {"solver"}},
    word{.name = "gptaq",
         .help = "GPTQ towards the output that the float model has for its own inputs, by GPTAQ",
         .sets = [](spec& s) { s.solver = spec::solver_kind::gptaq; },
         .once = {"solver"}},
    word{.name = "qronos",
         .help = "the same, by Qronos",
         .sets = [](spec& s) { s.solver = spec::solver_kind::qronos; },
         .once = {"solver"}},
    word{.name = "act",
         .help = "columns in the order of the Hessian's diagonal, the largest first",
         .sets = [](spec& s) { s.gptq_options.activation_order = true; },
         .needs = {gptq_or_kin}},
    word{.name = "static",
         .help = "scales of groups are chosen before any column is rounded",
         .sets = [](spec& s) { s.gptq_options.static_groups = true; },
         .needs = {gptq_or_kin}},
    word{.name = "stale",
         .help = "scales of groups as the published code finds them, from weights that miss the latest corrections",
         .sets = [](spec& s) { s.gptq_options.stale_columns = 128; },
         .needs = {gptq_or_kin}},
    word{.name = "damp=",
         .value = "0.01",
         .help = "damping relative to the mean diagonal element of the Hessian",
         .reads =
             [](spec& s, std::string_view damping) {
                 bool const understood = read_real(damping, 0, 100, s.gptq_options.damping);
                 s.obq_options.damping = s.gptq_options.damping;
                 return understood;
             },
         .complaint = "not a damping between 0 and 100:",
         .once = {"damping"},
         .needs = {need{[](spec const& s) { return s.solver != spec::solver_kind::rtn; },
                        "needs a solver other than rtn"}}},
    word{.name = "or-rtn",
         .help = "layers that no token reached, such as experts that none chose, are rounded to the nearest; without "
                 "this word they are an error",
         .sets = [](spec& s) { s.or_rtn = s.gptq_options.or_rtn = s.obq_options.or_rtn = true; },
         .needs = {need{
             [](spec const& s) { return s.solver != spec::solver_kind::rtn || s.weak.wanted || s.clip || s.search; },
             "needs a solver other than rtn, owq, clip or a search"}}},
    word{.name = "strength=",
         .value = "0.25",
         .help = "how much of the correction is made",
         .reads = [](spec& s, std::string_view part) { return read_real(part, 0, 1, s.strength.emplace()); },
         .complaint = "not a strength between 0 and 1:",
         .once = {"strength"},
         .needs = {need{[](spec const& s) {
                            return s.solver == spec::solver_kind::gptaq || s.solver == spec::solver_kind::qronos;
                        },
                        "needs gptaq or qronos"}}},
    word{.name = "zeros",
         .help = "weights that are 0 stay 0",
         .sets = [](spec& s) { s.obq_options.keep_zeros = true; },
         .needs = {need{[](spec const& s) { return s.solver == spec::solver_kind::obq; }, "needs obq"}}},
};

inline constexpr preset gptq_beside_weak_columns{"solver", [](spec& s) { s.solver = spec::solver_kind::gptq; }};

inline constexpr std::array weak{
    word{.name = "owq@",
         .value = "3.1",
         .help =
             "as many weak columns as make so many bits of a weight on average; the solver is `gptq` unless another "
             "is named",
         .reads =
             [](spec& s, std::string_view bits) {
                 s.weak.wanted = true;
                 return read_real(bits, 0, 16, s.weak.bits) && s.weak.bits > 0 && s.weak.bits < 16;
             },
         .complaint = "not a number of bits:",
         .once = {"number of weak columns"},
         .otherwise = gptq_beside_weak_columns},
    word{.name = "owq=",
         .value = "4",
         .help = "so many weak columns in each layer; the solver likewise",
         .reads =
             [](spec& s, std::string_view columns) {
                 s.weak.wanted = true;
                 return read_number(columns, s.weak.columns);
             },
         .complaint = "not a number of columns:",
         .once = {"number of weak columns"},
         .otherwise = gptq_beside_weak_columns},
    word{.name = "in=",
         .value = "q+k+v",
         .help = "only in these layers, of `q`, `k`, `v`, `o`, `gate`, `up` and `down`",
         .reads = read_layers,
         .complaint = "not among q, k, v, o, gate, up, down:",
         .once = {"list of layers"},
         .needs = {weak_columns}},
    word{.name = "by=activation",
         .help = "chosen by the size of their inputs alone",
         .sets = [](spec& s) { s.weak.chosen_by = sensitivity::activation; },
         .needs = {weak_columns}},
    word{.name = "uncompensated",
         .help = "weak columns stay as they are and make up for no error",
         .sets = [](spec& s) { s.weak.compensate = false; },
         .needs = {weak_columns}},
    word{.name = "published",
         .help = "columns counted by OWQ's formula for OPT",
         .sets = [](spec& s) { s.weak.rule = weak_rule::published; },
         .needs = {need{[](spec const& s) { return s.weak.bits > 0; }, "needs owq@ and a number of bits"}}},
};

inline constexpr std::array inputs{
    word{.name = "a=",
         .value = "int8",
         .help = "any grid, such as `a=int8sym` or `a=e2m1`; each token has a range of its own",
         .reads = [](spec& s, std::string_view grid) { return read_grid(grid, s.input.grid); },
         .once = {"grid of inputs"}},
    word{.name = "a=",
         .value = "int8@token",
         .help = "the same, written out",
         .reads = [](spec& s, std::string_view text) { return read_inputs(s, text, "@token"); },
         .once = {"grid of inputs", "range of inputs"}},
    word{.name = "a=",
         .value = "int8@tensor",
         .help = "one range for all tokens, from the calibration text",
         .reads =
             [](spec& s, std::string_view text) {
                 bool const understood = read_inputs(s, text, "@tensor");
                 s.input.dynamic = s.input.dynamic && !understood;
                 return understood;
             },
         .once = {"grid of inputs", "range of inputs"}},
    word{.name = "a=",
         .value = "mxfp4",
         .help = "any format that weights have under one name, with its groups of features and its kind of scales",
         .reads = read_input_block_format,
         .once = {"grid of inputs", "range of inputs"}},
    word{.name = "a=",
         .value = "int8@g32",
         .help = "so many features of a token have a range of their own",
         .reads =
             [](spec& s, std::string_view text) {
                 auto const at = std::min(text.find("@g"), text.size());
                 return read_inputs(s, text.substr(0, at), "") &&
                        read_number(text.substr(std::min(at + 2, text.size())), s.input.width);
             },
         .complaint = "not a grid, alone or with @token, @tensor or @g32:",
         .once = {"grid of inputs", "range of inputs"}},
    word{.name = "smooth",
         .help =
             "features of inputs are scaled as SmoothQuant does, and weights by the inverses, with the exponent 0.5",
         .sets = [](spec& s) { s.smooth = 0.5; },
         .once = {"smoothing"},
         .needs = {need{[](spec const& s) { return !s.power_of_two; }, "may not stand beside shifts"}}},
    word{.name = "smooth=",
         .value = "0.75",
         .help = "the same with another exponent, from 0 to 1",
         .reads = [](spec& s, std::string_view exponent) { return read_real(exponent, 0, 1, s.smooth.emplace()); },
         .complaint = "not an exponent between 0 and 1:",
         .once = {"smoothing"},
         .needs = {need{[](spec const& s) { return !s.power_of_two; }, "may not stand beside shifts"}}},
    word{.name = "shifts",
         .help = "features of inputs are scaled by powers of two, and weights by the inverses",
         .sets = [](spec& s) { s.power_of_two = true; },
         .needs = {need{[](spec const& s) { return !s.input.shifted; },
                        "may not stand beside fpq, which finds shifts of its own"},
                   need{[](spec const& s) { return !s.smooth; }, "may not stand beside smooth"}}},
    word{.name = "hadamard",
         .help = "inputs and weights are rotated by Walsh-Hadamard blocks of 128 features, after `smooth` or `shifts`",
         .sets = [](spec& s) { s.hadamard = 128; },
         .once = {"rotation"}},
    word{.name = "hadamard=",
         .value = "64",
         .help = "the same with blocks of another size, a power of two from 2 to 65536",
         .reads = read_hadamard,
         .complaint = "not a power of two from 2 to 65536:",
         .once = {"rotation"}},
};

inline constexpr std::array searches{
    word{.name = "search",
         .help = "ranges of weights, and of inputs where all tokens share one, by the error of the layer's output; "
                 "`fp4`, `fp6` and `fp8` then are any split of so many bits",
         .sets = [](spec& s) { s.search = true; },
         .once = {"search"}},
    word{.name = "fpq",
         .help =
             "the same, and the features of inputs are shifted by powers of two; `a=fp4` then means one range for all "
             "tokens",
         .sets = [](spec& s) { s.search = s.input.shifted = true; },
         .once = {"search"},
         .needs = {need{[](spec const& s) { return s.input.fixed(); },
                        "needs inputs with one range, such as a=fp4, without @token or @g32"}},
         .otherwise = {"range of inputs", [](spec& s) { s.input.dynamic = false; }}},
    word{.name = "fold",
         .help =
             "what `fpq`, `smooth` or `shifts` does to inputs is shared by the layers that read the same and folded "
             "into norms and weights before them where that is possible",
         .sets = [](spec& s) { s.input.folded = true; },
         .needs = {scaled_inputs}},
    word{.name = "paper",
         .help = "tries the exponent biases that LLM-FP4 tries, not evenly spaced ranges",
         .sets = [](spec& s) { s.candidates.spaced = range_candidates::spacing::bias; },
         .needs = {any_search}},
    word{.name = "metric=",
         .value = "cosine",
         .help = "what the error is: `squares` (the default), `absolute`, `weighted_squares`, `doubly_weighted` or "
                 "`cosine`",
         .reads = read_metric,
         .complaint = "not a metric:",
         .once = {"metric"},
         .needs = {any_search}},
};

inline constexpr std::array learned{
    word{.name = "lwc",
         .help = "how far ranges are clipped",
         .sets = [](spec& s) { s.learning.clip = true; },
         .needs = needs_of_learning},
    word{.name = "let",
         .help = "scales of the channels between layers, folded into the weights, and shifts of them where inputs are "
                 "quantized and norms have biases",
         .sets = [](spec& s) { s.learning.transform = true; },
         .once = {"transform of channels"},
         .needs = needs_of_learning},
    word{.name = "let=down",
         .help = "`let`, and scales of the channels between up and down",
         .sets = [](spec& s) { s.learning.transform = s.learning.hidden = true; },
         .once = {"transform of channels"},
         .needs = needs_of_learning},
    word{.name = "omniquant",
         .help =
             "`lwc`, `let`, `aug`, `epochs` and `alpha` as OmniQuant was published with them for these bits and the "
             "family of the model",
         .sets = [](spec& s) { s.learning.published = true; },
         .needs = {rows_or_groups, inputs_by_tokens, precise_scales, no_search, own_ranges, unmapped_inputs,
                   need{[](spec const& s) {
                            return !s.learning.clip && !s.learning.transform && !s.learning.auxiliary &&
                                   s.learning.alpha == detent::learning_options{}.alpha;
                        },
                        "chooses lwc, let, aug and alpha itself, which must not be given"}}},
    word{.name = "aug",
         .help = "the auxiliary loss too",
         .sets = [](spec& s) { s.learning.auxiliary = true; },
         .needs = {any_learning}},
    word{.name = "epochs=",
         .value = "40",
         .help = "passes over the text (20)",
         .reads = [](spec& s, std::string_view epochs) { return read_number(epochs, s.learning.epochs); },
         .complaint = "not a number of epochs:",
         .once = {"number of epochs"},
         .needs = {any_learning}},
    word{.name = "alpha=",
         .value = "0.75",
         .help = "exponent of activations in the first scales (0.5)",
         .reads = [](spec& s, std::string_view alpha) { return read_real(alpha, 0, 1, s.learning.alpha); },
         .complaint = "not between 0 and 1:",
         .once = {"alpha"},
         .needs = {any_learning}},
    word{.name = "p=",
         .value = "8",
         .help = "bits of the probabilities of attention, which are not rounded otherwise",
         .reads =
             [](spec& s, std::string_view text) {
                 index_t bits = 0;
                 bool const understood = read_number(text, bits) && bits >= 2 && bits <= 8;
                 s.learning.probability_bits = understood ? static_cast<int>(bits) : 0;
                 return understood;
             },
         .complaint = "not 2 to 8 bits:",
         .once = {"number of bits of probabilities"},
         .needs = {any_learning}},
};

inline constexpr std::array embeddings{
    word{.name = "e=",
         .value = "fp4",
         .help = "embeddings are quantized to this grid, and the output head like all layers",
         .reads = [](spec& s, std::string_view grid) { return read_grid(grid, s.embeddings); },
         .complaint = "names no grid:",
         .once = {"grid of embeddings"}},
};

/// All words, in the order in which a part is compared with them.
inline constexpr std::array sections{
    section{"Grids", "Which values exist. Every specification has one of these, besides `sym`.", grids},
    section{"Granularities", "Which weights share a scale.", granularities},
    section{"Ranges and scales", "How the scale of weights that share one is chosen, and how it is stored.", ranges},
    section{"Solvers", "Which value each weight gets ([asymmetric.md](asymmetric.md)).", solvers},
    section{"Weak columns", "Columns in high precision ([weak_columns.md](weak_columns.md)).", weak},
    section{"Inputs", "How layers round what they read, and what is done to it and to the weights before.", inputs},
    section{"Searches", "Ranges and formats by the output of a layer ([llm_fp4.md](llm_fp4.md)).", searches},
    section{"Learning", "What is learned block by block ([omniquant.md](omniquant.md)).", learned},
    section{"Embeddings", "What stays in floating point otherwise.", embeddings},
};

} // namespace vocabulary

} // namespace detent::inline DETENT_ABI

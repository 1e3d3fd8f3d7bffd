// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "detent/core/index.hpp"
#include "detent/granularity/granularity.hpp"
#include "detent/quantizer/named_grid.hpp"
#include "detent/scale/scale_format.hpp"
#include "detent/solver/gptq.hpp"
#include "detent/solver/metric_search.hpp"
#include "detent/solver/obq.hpp"
#include "detent/solver/output_search.hpp"
#include "detent/solver/owq.hpp"
#include "detent/solver/weak_budget.hpp"
#include "detent/transform/learning.hpp"

namespace detent::inline DETENT_ABI {

/// What linear layers are called in specifications, in the order of their roles: those of a block and the output head.
inline constexpr std::array<std::string_view, 8> layer_names{"q", "k", "v", "o", "gate", "up", "down", "head"};

/// A quantizer chosen at run time, for instance `int4:g128:gptq`: words separated by colons, in any order. The words
/// are in `quantizer/vocabulary.hpp`; docs/specification.md lists them.
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
        grid_name grid;                          ///< without a name they are not
        bool dynamic = true;                     ///< each token has a range of its own
        index_t width = 0;                       ///< features of a token that share a scale; 0: all of them
        scale_format format = float_format::f32; ///< of the scales
        bool shifted = false;                    ///< features are shifted by powers of two in the quantizer
        bool folded = false;                     ///< which are folded into the weights before

        /// Whether they have one range for all tokens.
        bool fixed() const { return !grid.name.empty() && !dynamic; }
    };

    std::string text; ///< as it was written
    grid_name grid;
    input_options input;
    std::optional<double> smooth; ///< SmoothQuant's scales of the features of inputs, with this exponent (0 to 1)
    bool power_of_two = false;    ///< features of inputs are scaled by powers of two, and weights by their inverses
    index_t hadamard = 0; ///< after that, both are rotated by Walsh-Hadamard blocks of so many features; 0: none
    bool search = false;  ///< ranges, and formats that have a choice, by the error of the output
    range_candidates candidates;
    output_metric metric = output_metric::squares;
    grid_name embeddings; ///< without a name they stay as they are
    per_tile granularity;
    range_kind range = range_kind::automatic;
    bool clip = false; ///< how far ranges are clipped is learned, for each layer by itself, by the error of its output
    solver_kind solver = solver_kind::rtn;
    gptq<> gptq_options; ///< also of `gptaq` and `qronos`
    obq obq_options;
    bool or_rtn = false;            ///< round layers to nearest that no token reached, else an error
    std::optional<double> strength; ///< of `gptaq` and `qronos`; their own default where none is named
    weak_options weak;
    scale_format format;       ///< of scales
    bool super_blocks = false; ///< scales have two levels, as those of ggml's blocks that are called K
    learning_options learning; ///< of how each block of a model is quantized

    /// Whether the solver must know what layers read in the float model.
    bool needs_float_stream() const {
        return !reads_floats() && (solver == solver_kind::gptaq || solver == solver_kind::qronos);
    }

    /// Whether the layers are shown the inputs they have in the float model, all of them, as LLM-FP4 does.
    bool reads_floats() const { return search || input.fixed(); }

    /// Whether layers must be shown every input and not only their Hessian: to find one range for all of them, or to
    /// search by a metric that the Hessian does not give.
    bool keeps_inputs() const { return input.fixed() || (search && metric != output_metric::squares); }

    /// Reads a specification; defined in `quantizer/parse_spec.hpp`. @throws error naming the specification, the part
    /// that is not understood or contradicts others, and what is wrong with it.
    static spec parse(std::string_view text);
};

} // namespace detent::inline DETENT_ABI

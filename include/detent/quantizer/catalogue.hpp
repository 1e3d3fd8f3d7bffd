// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "detent/matrix/activation_quantizer.hpp"
#include "detent/matrix/dequantize.hpp"
#include "detent/quantizer/named_grid.hpp"
#include "detent/quantizer/parse_spec.hpp"
#include "detent/quantizer/spec.hpp"
#include "detent/scale/default_range.hpp"
#include "detent/scale/mse.hpp"
#include "detent/scale/truncated.hpp"
#include "detent/solver/joint_search.hpp"
#include "detent/transform/fake_quantizer.hpp"

// The one place where values become types: a grid's name and a solver outside every loop, a range for every tile.

namespace detent::inline DETENT_ABI {

/// Calls `f(grid)` with the grid that `s` names. @throws error when there is none.
template <class F> void with_grid(spec const& s, F const& f) {
    if (!visit_grid(s.grid, f)) {
        throw error("specification '" + s.text + "'",
                    "unknown grid '" + s.grid.name + (s.grid.symmetric ? "' with 'sym'" : "'"));
    }
}

/// Calls `f(range)` with the range that `s` names for `G`. @throws error when it cannot serve that grid.
template <Grid G, class F> void with_range(spec const& s, F const& f) {
    using kind = spec::range_kind;
    if (s.range == kind::automatic && !s.weak.wanted) {
        f(default_range<G>{});
        return;
    }
    auto const range = s.range == kind::automatic ? kind::truncated : s.range;
    if (range == kind::absmax) {
        if constexpr (SymmetricallyLaid<G>) {
            f(absmax_range{});
        } else {
            throw error("specification '" + s.text + "'", "absmax needs two bits or more, or sym");
        }
    } else if (range == kind::mse) {
        f(mse_range{});
    } else if (range == kind::truncated) {
        bool const grouped = s.granularity.cols > 0;
        f(truncated_range{.steps = grouped ? 40 : 100}); // as published
    } else if constexpr (AffineGrid<G>) {
        f(minmax_range{});
    } else {
        throw error("specification '" + s.text + "'",
                    "minmax needs a grid with a zero point, int1 to int8 without sym");
    }
}

/// The range that a specification names, one type for all: so the problem of a grid is compiled once.
struct named_range {
    spec const* s = nullptr;

    template <Grid G> tile_scale fit(G const& grid, matrix_view tile, scale_format format) const {
        tile_scale scale;
        with_range<G>(*s, [&](auto const& range) { scale = range.fit(grid, tile, format); });
        return scale;
    }

    friend bool operator==(named_range, named_range) = default;
};

/// `inner` with as many weak columns in the layer as `s` says.
template <Solver Inner> owq<Inner> with_weak_columns(Inner const& inner, spec const& s) {
    return {.inner = inner,
            .columns = s.weak.columns,
            .chosen_by = s.weak.chosen_by,
            .compensate = s.weak.compensate,
            .format = s.format == float_format::bf16 ? float_format::bf16 : float_format::f16};
}

/// Solves the problem `p` for `w` as `s` says. Null where a Hessian or the inputs of the float model are not known.
inline solution solve(matrix_view w, hessian const* h, layer_inputs const* inputs, spec const& s, problem const& p,
                      executor_ref executor = {}) {
    using kind = spec::solver_kind;
    auto const corrected = [&](auto solver) {
        if (inputs == nullptr || !inputs->has_difference()) {
            throw error("specification '" + s.text + "'",
                        "this solver needs the inputs of the float model too (calibration::float_stream)");
        }
        solver.rounding = s.gptq_options;
        solver.strength = s.strength.value_or(solver.strength);
        if (s.weak.columns > 0) {
            return with_weak_columns(solver, s).solve(w, *inputs, p, executor);
        }
        return solver.solve(w, *inputs, p, executor);
    };
    if ((s.solver != kind::rtn || s.weak.columns > 0) && h == nullptr) {
        throw error("specification '" + s.text + "'",
                    s.solver == kind::rtn ? "weak columns need a Hessian" : "this solver needs a Hessian");
    }
    if (s.weak.columns > 0 && s.solver != kind::gptaq && s.solver != kind::qronos) {
        switch (s.solver) {
        case kind::gptq:
            return with_weak_columns(s.gptq_options, s).solve(w, *h, p, executor);
        case kind::obq:
            return with_weak_columns(s.obq_options, s).solve(w, *h, p, executor);
        default:
            return with_weak_columns(rtn{}, s).solve(w, *h, p, executor);
        }
    }
    switch (s.solver) {
    case kind::rtn:
        break;
    case kind::gptq:
        if (inputs != nullptr) {
            auto const& options = s.gptq_options;
            return options.solve(w, inputs->factor(options.damping, options.activation_order, executor), p, executor);
        }
        return s.gptq_options.solve(w, *h, p, executor);
    case kind::obq:
        return s.obq_options.solve(w, *h, p, executor);
    case kind::gptaq:
        return corrected(gptaq<>{});
    case kind::qronos:
        return corrected(qronos<>{});
    }
    return rtn{}.solve(w, {}, p, executor);
}

/// The number of bits of a code. @throws error when there is no such grid.
inline int bits_of(spec const& s) {
    int bits = 0;
    with_grid(s, [&]<Grid G>(G) { bits = G::bits; });
    return bits;
}

/// Throws what `quantize` would say of `s` itself, before any work.
inline void check(spec const& s) {
    with_grid(s, [&]<Grid G>(G grid) {
        with_range<G>(s, [](auto) {});
        if (s.weak.wanted && !contains_zero(grid)) {
            throw error("specification '" + s.text + "'", "weak columns need a grid that has 0");
        }
        if (s.weak.bits > 0 && !(s.weak.bits >= G::bits)) {
            throw error("specification '" + s.text + "'", "weak columns cannot make fewer bits than a code has");
        }
    });
    for (grid_name const& other : {s.input.grid, s.embeddings}) {
        if (!other.name.empty() && !visit_grid(other, [](auto) {})) {
            throw error("specification '" + s.text + "'", "unknown grid '" + other.text() + "'");
        }
    }
    if (s.input.shifted && !find_grid(s.input.grid).split()) {
        throw error("specification '" + s.text + "'", "fpq needs floating-point inputs");
    }
    if (s.candidates.spaced == range_candidates::spacing::bias) {
        bool const floats = find_grid(s.grid).split() && (!s.input.fixed() || find_grid(s.input.grid).split());
        if (!floats) {
            throw error("specification '" + s.text + "'", "paper needs floating-point grids");
        }
    }
}

/// The problem of rounding `w` to a grid of that name, and otherwise as `s` says. `s` must outlive it.
inline std::unique_ptr<problem const> make_problem(matrix_view w, grid_name const& name, spec const& s) {
    std::unique_ptr<problem const> p;
    visit_grid(name, [&]<Grid G>(G grid) {
        p = std::make_unique<problem_of<G, per_tile, named_range>>(grid, s.granularity, named_range{&s},
                                                                   with_unit(grid, w, s.format));
    });
    return p;
}

/// How layers round their inputs where each token has a range of its own; none where it has not.
inline std::optional<activation_quantizer> dynamic_input(spec const& s) {
    if (s.input.grid.name.empty() || !s.input.dynamic) {
        return {};
    }
    return activation_quantizer(find_grid(s.input.grid));
}

/// The codes and scales of `w` (out, in) in the problem `p` as packed bytes, with a complete report.
inline quantization packed(matrix_view w, problem const& p, solution const& solved,
                           std::optional<activation_quantizer> input) {
    quantization q{pack(p.table(), solved), solved.report, std::move(input)};
    q.report.clamped_scales = clamped_scales(w, solved);
    return q;
}

/// Quantizes `w` (out, in) where `s` searches ranges by the output of the layer, or its inputs have one range; then
/// they must have been kept. A solver other than `rtn` chooses the codes again for the scales that were found.
inline quantization quantize_by_output(matrix_view w, hessian const* h, layer_inputs const* inputs, spec const& s,
                                       executor_ref executor = {}) {
    auto const need = [&](bool there, char const* what) {
        if (!there) {
            throw error("specification '" + s.text + "'", what);
        }
    };
    need(!s.weak.wanted || s.granularity.cols == 0 || !s.search, "a search beside weak columns needs whole rows");
    std::vector<std::unique_ptr<problem const>> problems;
    std::vector<problem const*> formats;
    for (grid_name const& name : s.search ? splits_of(s.grid) : std::vector{s.grid}) {
        formats.push_back(problems.emplace_back(make_problem(w, name, s)).get());
    }
    std::optional<activation_quantizer> input = dynamic_input(s);
    std::optional<layer_inputs> seen; // what the layer knows of its rounded inputs
    format_choice chosen;
    if (s.input.fixed()) {
        need(inputs != nullptr && inputs->kept().rows() > 0, "inputs that share a range need all inputs, kept");
        std::vector<any_grid> grids;
        for (grid_name const& name : s.search ? splits_of(s.input.grid) : std::vector{s.input.grid}) {
            grids.push_back(find_grid(name));
        }
        if (s.search) {
            joint_search const search{s.candidates, s.metric, s.input.shifted};
            auto found = search(w, inputs->kept(), formats, grids, executor);
            chosen = std::move(found.weights);
            input = std::move(found.input);
            seen = std::move(found.seen);
        } else {
            input = activation_search{}.whole_range(inputs->kept(), grids.front());
            seen = rounded_inputs(inputs->kept(), *input, executor);
        }
        inputs = &*seen;
        h = &seen->hessian();
    } else {
        need(inputs != nullptr, "a search needs the inputs of the layer");
        chosen = choose_format(w, *inputs, formats, {s.candidates}, executor);
    }
    problem const& p = *formats[chosen.format];
    solution solved;
    if (!s.search) {
        solved = solve(w, h, inputs, s, p, executor);
    } else if (s.solver == spec::solver_kind::rtn && s.weak.columns == 0) {
        solved = std::move(chosen.weights);
    } else {
        spec given = s;
        given.gptq_options.static_groups = true;
        solved = solve(w, h, inputs, given, with_scales(p, chosen.weights), executor);
    }
    return packed(w, p, solved, std::move(input));
}

/// Quantizes `w` (out, in) as `s` says, given the Hessian of its inputs and all that is known about them; null where it
/// is not. Weak columns for a number of bits are counted for this matrix alone; `plan_weak_columns` in `model` does it
/// for a whole model. @throws error when the specification names something impossible, its solver needs to know more,
/// or the weights are not finite.
inline quantization quantize(matrix_view w, hessian const* h, layer_inputs const* inputs, spec const& s,
                             executor_ref executor = {}) {
    check(s);
    if (s.weak.bits > 0) {
        if (s.weak.rule == weak_rule::published || !s.weak.layers.empty()) {
            throw error("specification '" + s.text + "'", "in= and published are for whole models");
        }
        spec counted = s;
        counted.weak.columns = weak_budget(bits_of(s), s.weak.bits, std::array{weak_share{shape_of(w)}}).front();
        counted.weak.bits = 0;
        return quantize(w, h, inputs, counted, executor);
    }
    if (s.search || s.input.fixed()) {
        return quantize_by_output(w, h, inputs, s, executor);
    }
    auto const p = make_problem(w, s.grid, s);
    solution const solved = solve(w, h, inputs, s, *p, executor);
    return packed(w, *p, solved, dynamic_input(s));
}

/// Quantizes `w` (out, in) with scales that are given for its tiles, each so many columns of a row; the solver of `s`
/// chooses the codes.
inline quantization quantize_with(fake_quantizer<float>::tiles const& given, matrix_view w, layer_inputs const& known,
                                  spec const& s, executor_ref executor = {}) {
    check(s);
    auto const p = make_problem(w, s.grid, s);
    solution scales = p->begin(w);
    DETENT_EXPECTS(scales.tile.rows == 1 && scales.scales.tiles == shape_of(given.scale));
    for (index_t row = 0; row < given.scale.rows(); ++row) {
        for (index_t tile = 0; tile < given.scale.cols(); ++tile) {
            scales.scales.set(row, tile, {given.scale(row, tile), given.zero(row, tile)});
        }
    }
    spec fixed = s;
    fixed.gptq_options.static_groups = true;
    solution const solved = solve(w, &known.hessian(), &known, fixed, with_scales(*p, scales), executor);
    return packed(w, *p, solved, dynamic_input(s));
}

/// The powers of two by which the features of inputs `x` (token, in) are to be multiplied, in the search of `s`, for
/// all `weights` (out, in) that read them.
inline vector shared_shifts(std::span<matrix const* const> weights, matrix_view x, spec const& s,
                            executor_ref executor = {}) {
    index_t rows = 0;
    for (matrix const* w : weights) {
        rows += w->rows();
    }
    layer_inputs inputs(x.cols());
    inputs.keep(x.rows());
    inputs.add(x, executor);
    matrix all(rows, x.cols());
    for (rows = 0; matrix const* w : weights) {
        all.middleRows(rows, w->rows()) = *w;
        rows += w->rows();
    }
    spec plain = s; // the weights themselves are not wanted yet
    plain.solver = spec::solver_kind::rtn;
    plain.weak = {};
    auto const found = quantize(all, &inputs.hessian(), &inputs, plain, executor);
    vector scales(x.cols());
    std::ranges::transform(found.input->shifts(), scales.begin(), [](int k) { return std::ldexp(1.0F, k); });
    return scales;
}

/// Quantizes embeddings (vocabulary, hidden) to the grid that `s` names for them: with a search, the split of its bits
/// and the range of each row with the smallest error of the embeddings themselves; without, all with one range.
inline quantization quantize_embeddings(matrix_view table, spec const& s, executor_ref executor = {}) {
    quantization best;
    double least = std::numeric_limits<double>::infinity();
    for (grid_name const& grid : s.search ? splits_of(s.embeddings) : std::vector{s.embeddings}) {
        spec rows;
        rows.text = s.text;
        rows.grid = grid;
        rows.granularity = s.search ? per_tile{1, 0} : per_tile{0, 0};
        rows.range = s.search ? spec::range_kind::mse : spec::range_kind::automatic;
        rows.format = s.format;
        quantization q = quantize(table, nullptr, nullptr, rows, executor);
        double const error = (table - dequantize(q.weights)).squaredNorm();
        if (error < least) {
            least = error;
            best = std::move(q);
        }
    }
    return best;
}

/// The same for a solver that needs nothing but the weights, a Hessian, or more.
inline quantization quantize(matrix_view w, spec const& s, executor_ref executor = {}) {
    return quantize(w, nullptr, nullptr, s, executor);
}
inline quantization quantize(matrix_view w, hessian const& known, spec const& s, executor_ref executor = {}) {
    return quantize(w, &known, nullptr, s, executor);
}
inline quantization quantize(matrix_view w, layer_inputs const& known, spec const& s, executor_ref executor = {}) {
    return quantize(w, &known.hessian(), &known, s, executor);
}

} // namespace detent::inline DETENT_ABI

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

#include "detent/matrix/dequantize.hpp"
#include "detent/quantizer/catalogue.hpp"
#include "detent/quantizer/evidence_needs.hpp"
#include "detent/quantizer/named_grid.hpp"
#include "detent/quantizer/parse_spec.hpp"
#include "detent/quantizer/spec.hpp"
#include "detent/scale/default_range.hpp"
#include "detent/scale/given_range.hpp"
#include "detent/scale/mse.hpp"
#include "detent/scale/truncated.hpp"
#include "detent/solver/any_solver.hpp"
#include "detent/solver/clipped.hpp"
#include "detent/solver/rounding_inputs.hpp"
#include "detent/solver/searched.hpp"
#include "detent/solver/super_blocks.hpp"
#include "detent/solver/transformed.hpp"
#include "detent/transform/hadamard.hpp"
#include "detent/transform/power_of_two.hpp"
#include "detent/transform/smooth.hpp"

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

/// The problem of rounding `w` to the grid that `s` names, or with a search to any split of it, and otherwise as `s`
/// says. `s` must outlive it.
DETENT_INLINE std::unique_ptr<problem const> make_problem(matrix_view w, spec const& s) {
    std::vector<std::unique_ptr<problem const>> formats;
    for (grid_name const& name : s.search ? splits_of(s.grid) : std::vector{s.grid}) {
        visit_grid(name, [&]<Grid G>(G grid) {
            formats.push_back(std::make_unique<problem_of<G, per_tile, named_range>>(
                grid, s.granularity, named_range{&s}, with_unit(grid, w, s.format)));
        });
    }
    return formats.size() == 1 ? std::move(formats.front()) : std::make_unique<open_format>(std::move(formats));
}

/// Calls `f(solver)` with the solver that `s` names, without what wraps it.
template <class F> any_solver with_solver(spec const& s, F const& f) {
    using kind = spec::solver_kind;
    auto const corrected = [&](auto solver) {
        solver.rounding = s.gptq_options;
        solver.strength = s.strength.value_or(solver.strength);
        return f(solver);
    };
    switch (s.solver) {
    case kind::rtn:
        break;
    case kind::gptq:
        return f(s.gptq_options);
    case kind::obq:
        return f(s.obq_options);
    case kind::gptaq:
        return corrected(gptaq<>{});
    case kind::qronos:
        return corrected(qronos<>{});
    }
    return f(rtn{});
}

/// The solver that `s` describes for a matrix, with as many weak columns as `s.weak.columns` says: maps around the
/// search around weak columns around clips around the solver, or scales of two levels around it.
DETENT_INLINE any_solver make_solver(spec const& s) {
    auto const with_weak_columns = [&]<Solver S>(S const& inner) {
        if (s.weak.columns == 0) {
            return any_solver(inner);
        }
        return any_solver(owq<S>{.inner = inner,
                                 .columns = s.weak.columns,
                                 .chosen_by = s.weak.chosen_by,
                                 .compensate = s.weak.compensate,
                                 .format = s.format == float_format::bf16 ? float_format::bf16 : float_format::f16});
    };
    if (s.super_blocks) {
        return any_solver(
            super_blocks<any_solver>{with_solver(s, [](auto const& inner) { return any_solver(inner); })});
    }
    return with_solver(s, [&]<Solver S>(S const& inner) {
        return s.clip ? with_weak_columns(clipped<S>{inner}) : with_weak_columns(inner);
    });
}

DETENT_INLINE std::optional<input_rounding> rounding_of(spec const& s) {
    if (s.input.grid.name.empty()) {
        return {};
    }
    input_rounding how;
    for (grid_name const& name : s.search ? splits_of(s.input.grid) : std::vector{s.input.grid}) {
        how.grids.push_back(find_grid(name));
    }
    how.fixed = s.input.fixed();
    how.width = s.input.width;
    how.format = s.input.format;
    return how;
}

DETENT_INLINE power_of_two shifts_of(spec const& s) {
    auto const split = s.input.grid.name.empty() ? std::nullopt : find_grid(s.input.grid).split();
    return {split ? std::min(15, (1 << split->exponent_bits) - 1) : power_of_two{}.most};
}

/// `solver` with what `s` puts around it: a search, rounded inputs and maps.
DETENT_INLINE any_solver wrapped(any_solver solver, spec const& s) {
    auto const with_inputs = [&](auto const& inner) {
        auto const how = rounding_of(s);
        return how ? any_solver(rounding_inputs<std::remove_cvref_t<decltype(inner)>>{inner, *how}) : any_solver(inner);
    };
    if (s.search) {
        bool const only_rounds = s.solver == spec::solver_kind::rtn && s.weak.columns == 0;
        auto const search = [&]<Solver S>(S const& inner) {
            return with_inputs(searched<S>{
                .inner = inner, .candidates = s.candidates, .metric = s.metric, .shifted = s.input.shifted});
        };
        solver = only_rounds ? search(rtn{}) : search(solver);
    } else {
        solver = with_inputs(solver);
    }
    if (s.hadamard > 0) {
        solver = any_solver(transformed<hadamard<>, any_solver>{{s.hadamard}, solver});
    }
    if (s.power_of_two) {
        solver = any_solver(transformed<power_of_two, any_solver>{shifts_of(s), solver});
    }
    if (s.smooth) {
        solver = any_solver(transformed<smooth<>, any_solver>{smooth_of(s), solver});
    }
    return solver;
}

DETENT_INLINE int bits_of(spec const& s) {
    int bits = 0;
    with_grid(s, [&]<Grid G>(G) { bits = G::bits; });
    return bits;
}

DETENT_INLINE void check(spec const& s) {
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

DETENT_INLINE named_quantizer named_quantizer::with_scales(given_range scales) const {
    named_quantizer q = *this;
    q.given_ = std::make_shared<given_range const>(std::move(scales));
    return q;
}

DETENT_INLINE evidence_needs named_quantizer::needs() const {
    spec const& s = *spec_;
    bool const mapped = s.smooth || s.power_of_two || s.hadamard > 0;
    auto const how = rounding_of(s);
    return {.float_stream = s.needs_float_stream(),
            .float_inputs = s.reads_floats(),
            .all_inputs = s.keeps_inputs(),
            .rounded = how && !how->fixed && !mapped ? std::optional(how->dynamic()) : std::nullopt};
}

DETENT_INLINE quantization named_quantizer::operator()(matrix_view w, layer_inputs const& known,
                                                       executor_ref executor) const {
    if (spec_->or_rtn && known.features() > 0 && known.hessian().tokens() == 0) {
        expect_features(known.features(), w);
        return rounded(w, executor);
    }
    if (spec_->weak.bits > 0) {
        return counted(w)(w, known, executor);
    }
    spec const& s = *spec_;
    expect_evidence(known);
    any_solver const solver = wrapped(make_solver(s), s);
    auto const p = make_problem(w, s);
    solution solved = given_ ? solve_given(w, known, *p, solver, executor) : solver.solve(w, known, *p, executor);
    solved.report.clamped_scales = clamped_scales(w, solved);
    return packed(std::move(solved));
}

DETENT_INLINE quantization named_quantizer::rounded(matrix_view w, executor_ref executor) const {
    spec plain = *spec_;
    plain.or_rtn = plain.clip = plain.search = false;
    plain.solver = spec::solver_kind::rtn;
    plain.weak = {};
    plain.smooth = {}; // and what else needs inputs
    plain.power_of_two = false;
    named_quantizer q = *this;
    q.spec_ = std::make_shared<spec const>(std::move(plain));
    quantization done = q(w, layer_inputs(w.cols()), executor);
    done.report.fallback = "no input was ever seen";
    return done;
}

DETENT_INLINE named_quantizer named_quantizer::counted(matrix_view w) const {
    if (spec_->weak.rule == weak_rule::published || !spec_->weak.layers.empty()) {
        throw error("specification '" + spec_->text + "'", "in= and published are for whole models");
    }
    spec s = *spec_;
    s.weak.columns = weak_budget(bits_of(s), s.weak.bits, std::array{weak_share{shape_of(w)}}).front();
    s.weak.bits = 0;
    named_quantizer q = *this;
    q.spec_ = std::make_shared<spec const>(std::move(s));
    return q;
}

DETENT_INLINE void named_quantizer::expect_evidence(layer_inputs const& known) const {
    spec const& s = *spec_;
    auto const need = [&](bool there, char const* what) {
        if (!there) {
            throw error("specification '" + s.text + "'", what);
        }
    };
    using kind = spec::solver_kind;
    bool const nothing = known.features() == 0;
    need(!s.keeps_inputs() || known.kept().rows() > 0, "inputs that share a range need all inputs, kept");
    need(!s.search || !nothing, "a search needs the inputs of the layer");
    need(s.solver == kind::rtn || !nothing, "this solver needs a Hessian");
    need(s.weak.columns == 0 || !nothing, "weak columns need a Hessian");
    need((!s.clip && !s.smooth && !s.power_of_two && s.hadamard == 0) || !nothing,
         "clips and maps need what is known about inputs");
    need((s.solver != kind::gptaq && s.solver != kind::qronos) || known.has_difference() || s.input.fixed(),
         "this solver needs the inputs of the float model too (calibration::float_stream)");
}

DETENT_INLINE solution named_quantizer::solve_given(matrix_view w, layer_inputs const& known, problem const& p,
                                                    any_solver const& solver, executor_ref executor) const {
    solution scales = p.begin(w);
    if (scales.tile != given_->tile || scales.scales.tiles != given_->scales.tiles) {
        throw error("given scales", "are not for tiles of this matrix");
    }
    scales.scales.scales = given_->scales.scales;
    scales.scales.zeros = given_->scales.zeros;
    return solver.solve(w, known, detent::with_scales(p, scales), executor);
}

DETENT_INLINE quantization quantize(matrix_view w, layer_inputs const& known, spec const& s, executor_ref executor) {
    return named_quantizer(s)(w, known, executor);
}

DETENT_INLINE quantization quantize(matrix_view w, hessian const& known, spec const& s, executor_ref executor) {
    return named_quantizer(s)(w, layer_inputs(known), executor);
}

DETENT_INLINE quantization quantize(matrix_view w, spec const& s, executor_ref executor) {
    return named_quantizer(s)(w, layer_inputs{}, executor);
}

DETENT_INLINE float_vector shared_shifts(std::span<matrix const* const> weights, matrix_view x, spec const& s,
                                         executor_ref executor) {
    index_t rows = 0;
    for (matrix const* w : weights) {
        rows += w->rows();
    }
    matrix all(rows, x.cols());
    for (rows = 0; matrix const* w : weights) {
        all.middleRows(rows, w->rows()) = *w;
        rows += w->rows();
    }
    spec plain = s; // the weights themselves are not wanted yet
    plain.solver = spec::solver_kind::rtn;
    plain.weak = {};
    auto const found = quantize(all, layer_inputs::of(x, executor), plain, executor);
    float_vector scales(x.cols());
    std::ranges::transform(found.input->shifts(), scales.begin(), [](int k) { return std::ldexp(1.0F, k); });
    return scales;
}

DETENT_INLINE quantization quantize_embeddings(matrix_view table, spec const& s, executor_ref executor) {
    quantization best;
    double least = std::numeric_limits<double>::infinity();
    for (grid_name const& grid : s.search ? splits_of(s.embeddings) : std::vector{s.embeddings}) {
        spec rows;
        rows.text = s.text;
        rows.grid = grid;
        rows.granularity = s.search ? per_tile{1, 0} : per_tile{0, 0};
        rows.range = s.search ? spec::range_kind::mse : spec::range_kind::automatic;
        rows.format = s.format;
        quantization q = quantize(table, rows, executor);
        double const missed = (table - dequantize(q.weights)).squaredNorm();
        if (missed < least) {
            least = missed;
            best = std::move(q);
        }
    }
    if (!is_finite(least)) {
        throw error("embeddings", "no grid has a finite error of rounding; are they too large?");
    }
    return best;
}

} // namespace detent::inline DETENT_ABI

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <array>
#include <string>
#include <type_traits>
#include <utility>

#include "detent/grid/codebook_grid.hpp"
#include "detent/grid/fp_grid.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/quantizer/spec.hpp"
#include "detent/scale/mse.hpp"
#include "detent/scale/truncated.hpp"

// The one place where values become types: a grid's name and a solver outside every loop, a range for every tile.

namespace detent::inline DETENT_ABI {

/// Calls `f(grid)` with the grid that `s` names. @throws error when there is none.
template <class F> void with_grid(spec const& s, F const& f) {
    bool found = false;
    auto const offer = [&]<Grid G>(std::string const& name, bool symmetric, G grid) {
        if (!found && s.grid == name && s.symmetric == symmetric) {
            found = true;
            f(grid);
        }
    };
    auto const offer_integers = [&]<int... Less>(std::integer_sequence<int, Less...>) {
        (offer("int" + std::to_string(Less + 1), false, int_grid<Less + 1, zero::free>{}), ...);
        (offer("int" + std::to_string(Less + 1), true, int_grid<Less + 1, zero::none>{}), ...);
    };
    auto const offer_floats = [&]<int E, int... M>(std::integral_constant<int, E>, std::integer_sequence<int, M...>) {
        (offer("e" + std::to_string(E) + "m" + std::to_string(M), false, fp_grid<E, M>{}), ...);
    };
    auto const offer_all_floats = [&]<int... Less>(std::integer_sequence<int, Less...>) {
        (offer_floats(std::integral_constant<int, Less + 1>{}, std::make_integer_sequence<int, 7 - Less>{}), ...);
    };
    offer_integers(std::make_integer_sequence<int, 8>{});
    offer_all_floats(std::make_integer_sequence<int, 7>{});
    offer("ocp-e4m3", false, e4m3{});
    offer("ocp-e5m2", false, e5m2{});
    offer("nf4", false, nf4{});
    offer("ternary", false, ternary{});
    if (!found) {
        throw error("specification '" + s.text + "'", "unknown grid '" + s.grid + (s.symmetric ? "' with 'sym'" : "'"));
    }
}

/// Calls `f(range)` with the range that `s` names for `G`. @throws error when it cannot serve that grid.
template <Grid G, class F> void with_range(spec const& s, F const& f) {
    using kind = spec::range_kind;
    auto const range = s.range != kind::automatic ? s.range
                       : s.weak.wanted            ? kind::truncated
                       : AffineGrid<G>            ? kind::minmax
                                                  : kind::absmax;
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

    template <Grid G> tile_scale fit(G const& grid, matrix_view tile, float_format format) const {
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
    if (s.weak.columns > 0 && !s.needs_float_stream()) {
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
        if (s.weak.wanted && grid.decode(grid.encode(0)) != 0) {
            throw error("specification '" + s.text + "'", "weak columns need a grid that has 0");
        }
        if (s.weak.bits > 0 && !(s.weak.bits >= G::bits)) {
            throw error("specification '" + s.text + "'", "weak columns cannot make fewer bits than a code has");
        }
    });
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
    quantization answer;
    with_grid(s, [&]<Grid G>(G grid) {
        problem_of const p{grid, s.granularity, named_range{&s}, s.format};
        solution const solved = solve(w, h, inputs, s, p, executor);
        answer = {pack(grid, solved), solved.report};
    });
    return answer;
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

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <string>
#include <type_traits>
#include <utility>

#include "detent/grid/codebook_grid.hpp"
#include "detent/grid/fp_grid.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/quantizer/spec.hpp"
#include "detent/scale/mse.hpp"

// The one place where values become types: a grid's name, a range and a solver, each once, outside every loop.

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
    auto const range = s.range == kind::automatic ? (AffineGrid<G> ? kind::minmax : kind::absmax) : s.range;
    if (range == kind::absmax) {
        if constexpr (SymmetricallyLaid<G>) {
            f(absmax_range{});
        } else {
            throw error("specification '" + s.text + "'", "absmax needs two bits or more, or sym");
        }
    } else if (range == kind::mse) {
        f(mse_range{});
    } else if constexpr (AffineGrid<G>) {
        f(minmax_range{});
    } else {
        throw error("specification '" + s.text + "'",
                    "minmax needs a grid with a zero point, int1 to int8 without sym");
    }
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
        return solver.solve(w, *inputs, p, executor);
    };
    if (s.solver != kind::rtn && h == nullptr) {
        throw error("specification '" + s.text + "'", "this solver needs a Hessian");
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

/// Quantizes `w` (out, in) as `s` says, given the Hessian of its inputs and all that is known about them; null where it
/// is not. @throws error when the specification names something impossible, its solver needs to know more, or the
/// weights are not finite.
inline quantization quantize(matrix_view w, hessian const* h, layer_inputs const* inputs, spec const& s,
                             executor_ref executor = {}) {
    quantization answer;
    with_grid(s, [&]<Grid G>(G grid) {
        solution solved;
        with_range<G>(s, [&](auto range) {
            solved = solve(w, h, inputs, s, problem_of{grid, s.granularity, range, s.format}, executor);
        });
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

/// Throws what `quantize` would say of `s` itself, before any work.
inline void check(spec const& s) {
    with_grid(s, [&]<Grid G>(G) { with_range<G>(s, [](auto) {}); });
}

} // namespace detent::inline DETENT_ABI

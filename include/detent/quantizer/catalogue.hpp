// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <memory>
#include <optional>
#include <span>
#include <utility>

#include "detent/core/eigen.hpp"
#include "detent/core/executor.hpp"
#include "detent/core/needs_exceptions.hpp"
#include "detent/evidence/layer_inputs.hpp"
#include "detent/matrix/input_rounding.hpp"
#include "detent/matrix/solution.hpp"
#include "detent/quantizer/evidence_needs.hpp"
#include "detent/quantizer/spec.hpp"
#include "detent/scale/given_range.hpp"
#include "detent/transform/power_of_two.hpp"
#include "detent/transform/smooth.hpp"

namespace detent::inline DETENT_ABI {

class any_solver;
class problem;

/// How `s` rounds the inputs of layers; none where it does not.
std::optional<input_rounding> rounding_of(spec const& s);

/// How `s` scales the features of inputs.
inline smooth<> smooth_of(spec const& s) { return {static_cast<float>(s.smooth.value_or(0.5))}; }
power_of_two shifts_of(spec const& s);

/// The number of bits of a code. @throws error when there is no such grid.
int bits_of(spec const& s);

/// Throws what quantizing by `s` would say of `s` itself, before any work.
void check(spec const& s);

/// A quantizer that a specification describes: what `quantizer` is at compile time, chosen at run time, with the same
/// bits. It is a value; copies are cheap.
class named_quantizer {
public:
    /// Weak columns for a number of bits are counted for each matrix alone; `plan_weak_columns` in `model` does it for
    /// a whole model. @throws error when the specification names something impossible.
    explicit named_quantizer(spec s) : spec_(std::make_shared<spec const>(std::move(s))) { check(*spec_); }

    spec const& description() const { return *spec_; }

    /// This quantizer with scales that are given for the tiles of one matrix.
    named_quantizer with_scales(given_range scales) const;

    /// What must be known about the inputs of layers.
    evidence_needs needs() const;

    /// The packed weights for `w` (out, in) and what is known about their inputs. @throws error when that is not
    /// enough, or the weights are not finite. Where no token was seen, `or-rtn` has them rounded to nearest instead.
    quantization operator()(matrix_view w, layer_inputs const& known, executor_ref executor = {}) const;

private:
    /// What `or-rtn` does for a layer that no token reached: no more than rounds.
    quantization rounded(matrix_view w, executor_ref executor) const;

    /// With as many weak columns as make so many bits of a weight of `w`.
    named_quantizer counted(matrix_view w) const;

    void expect_evidence(layer_inputs const& known) const;

    solution solve_given(matrix_view w, layer_inputs const& known, problem const& p, any_solver const& solver,
                         executor_ref executor) const;

    std::shared_ptr<spec const> spec_;
    std::shared_ptr<given_range const> given_;
};

/// Quantizes `w` (out, in) as `s` says, see `named_quantizer`.
quantization quantize(matrix_view w, layer_inputs const& known, spec const& s, executor_ref executor = {});
/// Quantizes `w` (out, in) as `s` says where no more than the Hessian of the inputs is known, or nothing.
quantization quantize(matrix_view w, hessian const& known, spec const& s, executor_ref executor = {});
quantization quantize(matrix_view w, spec const& s, executor_ref executor = {});

/// The powers of two by which the features of inputs `x` (token, in) are to be multiplied, in the search of `s`, for
/// all `weights` (out, in) that read them.
float_vector shared_shifts(std::span<matrix const* const> weights, matrix_view x, spec const& s,
                           executor_ref executor = {});

/// Quantizes embeddings (vocabulary, hidden) to the grid that `s` names for them: with a search, the split of its bits
/// and the range of each row with the smallest error of the embeddings themselves; without, all with one range.
quantization quantize_embeddings(matrix_view table, spec const& s, executor_ref executor = {});

} // namespace detent::inline DETENT_ABI

#if !defined(DETENT_COMPILED)
#include "detent/quantizer/catalogue.ipp" // IWYU pragma: export
#endif

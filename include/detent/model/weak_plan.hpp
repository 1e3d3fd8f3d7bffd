// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "detent/core/needs_exceptions.hpp"
#include "detent/model/block.hpp"
#include "detent/quantizer/spec.hpp"
#include "detent/solver/weak_budget.hpp"

namespace detent::inline DETENT_ABI {

/// The name in specifications of a role that is quantized.
constexpr std::string_view name_of(linear_role role) { return layer_names[static_cast<std::size_t>(role)]; }

/// How many weak columns each linear layer of a block gets.
using weak_plan = std::map<layer_place, index_t>;

/// The plan that `s` asks for, for codes of `bits`. For bits on average, feed-forward layers, those of experts too, get
/// a smaller share of their inputs than attention's: 0.25 of it, or 0.375 with a gate, as published for OPT and LLaMA.
/// @throws error as `weak_budget`, where the block has no layer that `s` names, and where a layer has too few inputs.
weak_plan plan_weak_columns(block const& b, spec const& s, int bits);

/// `s` for a layer with the number of weak columns that the plan gives it.
spec with_plan(spec s, weak_plan const& plan, layer_place place);

} // namespace detent::inline DETENT_ABI

#if !defined(DETENT_COMPILED)
#include "detent/model/weak_plan.ipp" // IWYU pragma: export
#endif

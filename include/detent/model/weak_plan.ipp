// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cstddef>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "detent/core/error.hpp"
#include "detent/model/block.hpp"
#include "detent/model/weak_plan.hpp"
#include "detent/quantizer/spec.hpp"
#include "detent/solver/weak_budget.hpp"

namespace detent::inline DETENT_ABI {

DETENT_INLINE weak_plan plan_weak_columns(block const& b, spec const& s, int bits) {
    auto const& weak = s.weak;
    std::vector<layer_place> places;
    std::vector<weak_share> shares;
    for (auto const& group : b.groups()) {
        for (layer_place const place : group) {
            auto const name = name_of(place.role);
            bool const here = weak.layers.empty() || std::ranges::find(weak.layers, name) != weak.layers.end();
            bool const gated = b.mlps[static_cast<std::size_t>(place.expert)].gate.has_value();
            double const ratio = place.role <= linear_role::output ? 1 : gated ? 0.375 : 0.25;
            places.push_back(place);
            shares.push_back({b.linear(place).shape(), here && weak.wanted ? ratio : 0});
        }
    }
    for (auto const& name : weak.layers) {
        if (std::ranges::find(places, name, [](layer_place p) { return name_of(p.role); }) == places.end()) {
            throw error("specification '" + s.text + "'",
                        "asks for weak columns in '" + name + "', which this model's blocks do not have");
        }
    }
    std::vector<index_t> counts;
    if (weak.bits > 0) {
        counts = weak_budget(bits, weak.bits, shares, weak.rule);
    }
    weak_plan plan;
    for (std::size_t i = 0; i < places.size(); ++i) {
        index_t const columns = weak.bits > 0 ? counts[i] : shares[i].ratio > 0 ? weak.columns : 0;
        if (columns >= shares[i].shape.cols) {
            throw error("specification '" + s.text + "'",
                        std::to_string(weak.columns) + " weak columns of the " + std::to_string(shares[i].shape.cols) +
                            " inputs of '" + std::string(name_of(places[i].role)) + "' leave none to quantize");
        }
        plan[places[i]] = columns;
    }
    return plan;
}

DETENT_INLINE spec with_plan(spec s, weak_plan const& plan, layer_place place) {
    auto const planned = plan.find(place);
    s.weak.columns = planned == plan.end() ? 0 : planned->second; // the output head has none
    s.weak.bits = 0;
    return s;
}

} // namespace detent::inline DETENT_ABI

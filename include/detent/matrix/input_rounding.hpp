// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "detent/core/contract.hpp"
#include "detent/core/eigen.hpp"
#include "detent/core/error.hpp"
#include "detent/matrix/activation_quantizer.hpp"
#include "detent/scale/any_grid.hpp"
#include "detent/scale/any_range.hpp"

namespace detent::inline DETENT_ABI {

/// How a layer's inputs are to be rounded, before any of them is seen: what the policy `activations` says, with its
/// grid known only at run time.
struct input_rounding {
    std::vector<any_grid> grids;             ///< a search may choose among them; elsewhere the first is meant
    bool fixed = false;                      ///< static scales, the same for all tokens
    index_t width = 0;                       ///< consecutive features that share a scale, 0 for all of a token
    scale_format format = float_format::f32; ///< of scales; its unit, where it has one, is found from the inputs
    any_range range = {};                    ///< fits scales for the first grid; empty for the whole range of inputs

    /// With scales for each token; where they have a unit, each token finds its own.
    activation_quantizer dynamic() const {
        return activation_quantizer(grid(), {.width = width, .kind = format.kind, .range = range});
    }

    /// With scales for each token and the unit that all of `x` (token, in) has, where scales have one (the static
    /// global scale of NVFP4's activations). @throws error when there is no input or one is not finite.
    template <class Scalar = float> activation_quantizer dynamic(matrix_view x) const {
        expect_finite(x);
        activation_rounding how{.width = width, .kind = format.kind, .range = range};
        if (format.has_unit()) {
            how.unit = with_unit(grid(), basic_matrix_view<Scalar>(x), format).unit;
        }
        return activation_quantizer(grid(), std::move(how));
    }

    /// With static scales for the inputs `x` (token, in): those of the smallest ranges that hold all of it, or what
    /// `range` chooses. @throws error when there is no input or one is not finite.
    template <class Scalar = float> activation_quantizer fit(matrix_view x) const {
        expect_finite(x);
        expect_option(width >= 0, "activations", "width of groups", width, "0 or more");
        scale_format const of_x = with_unit(grid(), x, format);
        activation_rounding how{.width = width};
        index_t const step = width == 0 ? x.cols() : width;
        for (index_t begin = 0; begin < x.cols(); begin += step) {
            index_t const n = std::min(step, x.cols() - begin);
            basic_matrix_view<Scalar> const group = view_of(x.data() + begin, x.rows(), n, x.outerStride());
            how.fixed.push_back(fit_scale(grid(), range, group, of_x, {0, begin}));
        }
        return activation_quantizer(grid(), std::move(how));
    }

    friend bool operator==(input_rounding const&, input_rounding const&) = default;

private:
    any_grid const& grid() const {
        expect_valid(!grids.empty(), "activations", "have no grid to be rounded to");
        return grids.front();
    }

    static void expect_finite(matrix_view x) {
        if (!(x.size() > 0 && all_finite(x))) {
            raise(error("inputs", x.size() > 0 ? "are not finite" : "are missing"));
        }
    }
};

} // namespace detent::inline DETENT_ABI

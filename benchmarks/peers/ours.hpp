// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "contestant.hpp"
#include "detent/core/executor.hpp"
#include "detent/core/thread_team.hpp"
#include "detent/grid/codebook_grid.hpp"
#include "detent/grid/fp_grid.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/kernel/multiply.hpp"
#include "detent/matrix/dequantize.hpp"
#include "detent/quantizer/quantizer.hpp"
#include "detent/quantizer/stored_matrix.hpp"

namespace peers {

/// Weights in codes of a grid, 128 of a row with one scale; `how` are the last arguments of `kernel::multiply`.
template <class G, class... How> struct packed_way {
    std::tuple<How...> how;

    static detent::packed_matrix store(matrix const& w) {
        return detent::quantizer<G, detent::per_group<128>>{}(w).packed();
    }
    static double bytes(detent::packed_matrix const& p) {
        auto const numbers = p.scales.scales.size() + p.scales.zeros.size(); // floats, whatever they are in files
        return static_cast<double>(p.row_bytes() * p.shape().rows) + static_cast<double>(numbers * sizeof(float));
    }
    static matrix weights(detent::packed_matrix const& p) { return dequantize(p); }
    void multiply(detent::packed_matrix const& p, matrix const& x, matrix& y, int threads) const {
        class detent::thread_team several(threads);
        auto const executor = threads > 1 ? detent::executor_ref(several) : detent::executor_ref();
        std::apply(
            [&](How... last) {
                detent::kernel::multiply(p.view(), x.data(), x.outerStride(), x.rows(), y.data(), y.outerStride(),
                                         executor, last...);
            },
            how);
    }
};

template <class G, class... How> entry packed(std::string name, How... how) {
    return stored(std::move(name), packed_way<G, How...>{{how...}});
}

/// Weights as f16 or bf16.
struct stored_way {
    detent::float_format format;

    detent::stored_matrix store(matrix const& w) const { return {w, format}; }
    static double bytes(detent::stored_matrix const& w) { return 2 * static_cast<double>(w.shape().size()); }
    static matrix weights(detent::stored_matrix const& w) { return w.numbers(); }
    static void multiply(detent::stored_matrix const& w, matrix const& x, matrix& y, int threads) {
        class detent::thread_team several(threads);
        detent::multiply(w, x, y, threads > 1 ? detent::executor_ref(several) : detent::executor_ref());
    }
};

/// What this library takes part with.
inline std::vector<entry> our_entries() {
    using detent::input_format;
    using detent::int_grid;
    return {
        packed<int_grid<4, detent::zero::none>>("detent int4 g128"),
        packed<detent::e2m1>("detent e2m1 g128"),
        packed<detent::nf4>("detent nf4 g128"),
        packed<int_grid<3>>("detent int3 g128"),
        packed<int_grid<2>>("detent int2 g128"),
        packed<int_grid<8>>("detent int8 g128"),
        packed<detent::e4m3>("detent e4m3 g128"),
        packed<int_grid<4, detent::zero::none>>("detent int4 g128, int8 inputs", input_format::int8),
        packed<detent::nf4>("detent nf4 g128, int8 inputs", input_format::int8),
        packed<int_grid<3>>("detent int3 g128, int8 inputs", input_format::int8),
        packed<int_grid<2>>("detent int2 g128, int8 inputs", input_format::int8),
        packed<int_grid<8>>("detent int8 g128, int8 inputs", input_format::int8),
        packed<int_grid<4, detent::zero::none>>("detent int4 g128, bf16 inputs", input_format::bf16),
        stored("detent f16", stored_way{detent::float_format::f16}),
        stored("detent bf16", stored_way{detent::float_format::bf16}),
    };
}

} // namespace peers

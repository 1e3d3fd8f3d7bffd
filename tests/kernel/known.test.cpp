// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <utility>

#include <gtest/gtest.h>

#include "detent/grid/codebook_grid.hpp"
#include "detent/grid/fp_grid.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/kernel/block_inputs.hpp"
#include "detent/kernel/known.hpp"
#include "grid/own_grid.hpp"
#include "kernel/products.hpp"

namespace {

using namespace detent;

/// A grid of whose numbers the compiler knows nothing.
struct computed_e4m3 : e4m3 {
    static float decode(code c) {
        static auto const numbers = table_of(e4m3{});
        return numbers[c];
    }
};

template <class... Table> struct tables {
    /// How many of the tables a product may use.
    template <class Known>
    static constexpr int that_may_be_used = (0 + ... + (Known::template may_use<Table>() ? 1 : 0));
};
using float_tables = tables<simd::table_in_memory
#if defined(__AVX2__)
                            ,
                            simd::floating_numbers, simd::consecutive_numbers
#endif
#if defined(__AVX512BW__) || (defined(__AVX2__) && !defined(__AVX512F__))
                            ,
                            simd::table_in_register, simd::table_in_two_registers
#endif
                            >;

/// The one table of floats that types leave is the one that is chosen at run time, and integers are left where a
/// product at run time has them.
template <Grid G> void expect_choice_at_run_time() {
    using known = kernel::weights_of<G, per_group<128>>;
    packed_matrix const packed = test::random_packed(G{}, {3, 256}, {1, 128});
    packed_view const w = packed.view();
    static_assert(float_tables::that_may_be_used<known> == 1);
    int calls = 0;
    simd::with_table(w.table, w.bits, w.consecutive, w.zeros != nullptr, [&]<class Table>(Table const&) {
        EXPECT_TRUE(known::template may_use<Table>()) << G::bits;
        ++calls;
    });
    EXPECT_EQ(calls, 1);

    int typed_calls = 0;
    bool const typed = kernel::with_wide_table<known>(w, [&](auto const&...) { ++typed_calls; });
    EXPECT_EQ(typed, kernel::with_wide_table(w, [](auto const&...) {})) << G::bits;
    EXPECT_EQ(typed_calls, typed ? 1 : 0);
    EXPECT_EQ(known::may_be_integers, kernel::integers_of(w.table, w.bits, w.zeros != nullptr).has_value());
    if (typed) {
        EXPECT_TRUE(known::may_be_integers);
    }
}

TEST(weights_of, leaves_what_is_chosen_at_run_time) {
    []<int... Less>(std::integer_sequence<int, Less...>) {
        (expect_choice_at_run_time<int_grid<Less + 1>>(), ...);
        (expect_choice_at_run_time<int_grid<Less + 1, zero::none>>(), ...);
    }
    (std::make_integer_sequence<int, 8>{});
    expect_choice_at_run_time<e2m1>();
    expect_choice_at_run_time<fp_grid<3, 0>>();
    expect_choice_at_run_time<fp_grid<2, 3>>();
    expect_choice_at_run_time<fp_grid<1, 6>>();
    expect_choice_at_run_time<e4m3>();
    expect_choice_at_run_time<e5m2>();
    expect_choice_at_run_time<nf4>();
    expect_choice_at_run_time<ternary>();
    expect_choice_at_run_time<test::five>();
    expect_choice_at_run_time<test::powers_of_two>();
}

TEST(weights_of, excludes_no_table_of_its_width_for_numbers_that_the_compiler_does_not_know) {
    using known = kernel::weights_of<computed_e4m3, per_channel>;
    static_assert(known::bits == 8 && known::may_be_integers);
    static_assert(known::may_use<simd::table_in_memory>());
#if defined(__AVX2__)
    static_assert(known::may_use<simd::floating_numbers>() && known::may_use<simd::consecutive_numbers>());
#endif
    static_assert(!known::may_use<simd::nibble_bytes>());
}

TEST(times_floats, adds_to_what_is_known_that_inputs_are_floats) {
    using known = kernel::weights_of<int_grid<4>, per_group<128>>;
    using floats = kernel::times_floats<known>;
    static_assert(floats::bits == 4 && floats::tile_cols == 128);
    static_assert(floats::takes(input_format::f32) && known::takes(input_format::int8));
    static_assert(!floats::takes(input_format::int8) && !floats::takes(input_format::bf16));
}

TEST(with_bits_of, takes_the_number_of_bits_from_the_type_or_the_matrix) {
    packed_matrix const w = test::random_packed(int_grid<3>{}, {3, 8}, {1, 0});
    EXPECT_EQ(kernel::with_bits_of<kernel::any_weights>(w.view(), []<int Bits> { return Bits; }), 3);
    using known = kernel::weights_of<int_grid<3>, per_channel>;
    EXPECT_EQ(kernel::with_bits_of<known>(w.view(),
                                          []<int Bits> {
                                              static_assert(Bits == 3);
                                              return Bits;
                                          }),
              3);
}

} // namespace

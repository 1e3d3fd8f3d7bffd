// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <array>
#include <concepts>
#include <string>

#include <gtest/gtest.h>

#include "io/failure_message.hpp"
#include "quantizer/type_matrix_layer.hpp"
#include "quantizer/type_matrix_rows.hpp"

// Which cells of the matrix make sense, and that all those that do are there.

namespace detent::test {
namespace {

// Which range serves which grid, by hand: absmax, minmax, mse, truncated.

template <class Ranges> struct served_by;
template <class... Rs> struct served_by<type_list<Rs...>> {
    template <class G> static constexpr std::array<bool, sizeof...(Rs)> grid{serves<Rs, G>...};
};
template <class G> inline constexpr auto served = served_by<all_ranges>::grid<G>;
constexpr std::array all_four{true, true, true, true};
constexpr std::array not_minmax{true, false, true, true};
constexpr std::array none_of_them{false, false, false, false};

static_assert(served<int_grid<4>> == all_four && served<int_grid<2>> == all_four && served<own_affine> == all_four);
static_assert(served<int3s> == not_minmax && served<int8s> == not_minmax && served<int1s> == not_minmax);
static_assert(served<e2m1> == not_minmax && served<e3m2> == not_minmax && served<e4m3> == not_minmax);
static_assert(served<nf4> == not_minmax && served<ternary> == not_minmax && served<own> == not_minmax);
static_assert(served<int_grid<1>> == (std::array{false, true, true, true}),
              "no symmetric range has a zero point there");
static_assert(served<one_of<e2m1, nf4>> == not_minmax, "a choice is served as all its grids are");
static_assert(served<int> == none_of_them);

// Which wrapper fits around which, by hand; rows are the outer ones: bare, weak, clip, search, rotate.

template <class Wrappers> struct around_others;
template <class... Ws> struct around_others<type_list<Ws...>> {
    template <class Outer> static constexpr std::array<bool, sizeof...(Ws)> row{fit_together<Outer, Ws>...};
};
template <class Outer> inline constexpr auto row = around_others<all_wrappers>::row<Outer>;
static_assert(row<bare> == (std::array{true, true, true, true, true}));
static_assert(row<weak> == (std::array{true, false, true, true, false}));
static_assert(row<clip> == (std::array{true, true, false, false, false}));
static_assert(row<search> == (std::array{true, true, false, false, false}));
static_assert(row<rotate> == (std::array{true, true, true, true, true}));

// What `wraps` finds in a composed solver is what it was composed of.

template <wrapping What, class Tag, class Outer, class Inner, class S>
inline constexpr bool
    found_as_composed = wraps<What, typename Outer::template around<typename Inner::template around<S>>> ==
                        (std::same_as<Outer, Tag> || std::same_as<Inner, Tag>);

/// A solver within two wrappers is a solver, tells what it wraps and asks for what its parts need.
template <class S, class Outer, class Inner> constexpr bool solver_makes_sense() {
    if constexpr (fit_together<Outer, Inner>) {
        using composed = typename Outer::template around<typename Inner::template around<S>>;
        constexpr bool whole = std::same_as<typename S::evidence, layer_inputs> || wraps<wrapping::search, composed> ||
                               wraps<wrapping::map, composed>;
        constexpr bool nothing = std::same_as<composed, rtn>;
        static_assert(Solver<composed>);
        static_assert(found_as_composed<wrapping::weak_columns, weak, Outer, Inner, S>);
        static_assert(found_as_composed<wrapping::clip, clip, Outer, Inner, S>);
        static_assert(found_as_composed<wrapping::search, search, Outer, Inner, S>);
        static_assert(found_as_composed<wrapping::map, rotate, Outer, Inner, S>);
        return std::same_as<typename composed::evidence,
                            std::conditional_t<whole, layer_inputs, std::conditional_t<nothing, no_evidence, hessian>>>;
    }
    return true;
}

static_assert(all_of(all_solvers{}, []<class S>(std::type_identity<S>) {
    return all_of(all_wrappers{}, []<class Outer>(std::type_identity<Outer>) {
        return all_of(all_wrappers{},
                      []<class Inner>(std::type_identity<Inner>) { return solver_makes_sense<S, Outer, Inner>(); });
    });
}));

// The sample that is run has everything.

template <class... As, class... Bs, class... Cs>
type_list<As..., Bs..., Cs...> joined(type_list<As...>, type_list<Bs...>, type_list<Cs...>);
using sample = decltype(joined(sample_1{}, sample_2{}, sample_3{}));
static_assert(sample::size >= 40);

template <class F> constexpr bool any_in_sample(F f) {
    return !all_of(sample{}, [f]<class C>(std::type_identity<C> c) { return !f(c); });
}
static_assert(all_of(all_grids{}, []<class G>(std::type_identity<G>) {
    return any_in_sample([]<class C>(std::type_identity<C>) { return std::same_as<typename C::grid, G>; });
}));
static_assert(all_of(all_granularities{}, []<class P>(std::type_identity<P>) {
    return any_in_sample([]<class C>(std::type_identity<C>) { return std::same_as<typename C::granularity, P>; });
}));
static_assert(all_of(all_ranges{}, []<class R>(std::type_identity<R>) {
    return any_in_sample([]<class C>(std::type_identity<C>) { return std::same_as<typename C::range, R>; });
}));
static_assert(all_of(all_solvers{}, []<class S>(std::type_identity<S>) {
    return any_in_sample([]<class C>(std::type_identity<C>) { return std::same_as<typename C::base, S>; });
}));
static_assert(all_of(all_wrappers{}, []<class Outer>(std::type_identity<Outer>) {
    return all_of(all_wrappers{}, []<class Inner>(std::type_identity<Inner>) {
        return !fit_together<Outer, Inner> || std::same_as<Outer, bare> ||
               any_in_sample([]<class C>(std::type_identity<C>) {
                   return std::same_as<typename C::outer, Outer> && std::same_as<typename C::inner, Inner>;
               });
    });
}));

TEST(type_matrix_edges, weak_columns_need_a_grid_with_0_whatever_is_around) {
    matrix_layer const& l = matrix_layer::shared();
    auto const complaint = [&]<class Q>(Q const&) {
        return failure_message([&] { make_quantizer<Q>()(l.w, l.known); });
    };
    std::string const expected = "weak columns: need a grid that has 0";
    EXPECT_EQ(complaint(quantizer<int1s, per_channel, owq<>>{}), expected);
    EXPECT_EQ(complaint(quantizer<own, per_group<32>, owq<clipped<obq>>>{}), expected);
    EXPECT_EQ(complaint(quantizer<own, per_channel, clipped<owq<rtn>>>{}), expected);
    EXPECT_EQ(complaint(quantizer<int1s, block, searched<owq<>>, mse_range>{}), expected);
    EXPECT_EQ(complaint(quantizer<own, per_channel, transformed<hadamard<16>, owq<>>>{}), expected);
}

} // namespace
} // namespace detent::test

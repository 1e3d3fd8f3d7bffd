// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <gtest/gtest.h>

#include "detent/evidence/layer_inputs.hpp"
#include "io/failure_message.hpp"
#include "matrix/random_map.hpp"
#include "nn/random_matrix.hpp"

namespace {

using namespace detent;

TEST(layer_inputs, sums_products_of_the_difference_and_the_input) {
    for (index_t const in : {1, 23, 150}) {
        matrix const floats = test::random_matrix(350, in, 1);
        matrix const x = 0.9F * floats + 0.1F * test::random_matrix(350, in, 2);
        layer_inputs known(in);
        EXPECT_FALSE(known.has_difference());
        known.add(x.topRows(300), floats.topRows(300));
        known.add(x.bottomRows(50), floats.bottomRows(50));
        EXPECT_TRUE(known.has_difference());
        Eigen::MatrixXd const expected = 2.0 / 350 * (floats - x).cast<double>().transpose() * x.cast<double>();
        EXPECT_LE((known.difference() - expected).cwiseAbs().maxCoeff(), 1e-5 * expected.cwiseAbs().maxCoeff());
        EXPECT_EQ(known.hessian().tokens(), 350);
        EXPECT_EQ(known.hessian().sum(), [&] {
            hessian h(in);
            h.add(x.topRows(300));
            h.add(x.bottomRows(50));
            return h.sum();
        }());
    }
}

TEST(layer_inputs, measures_the_distance_to_the_float_output) {
    matrix const floats = test::random_matrix(200, 30, 1);
    matrix const x = 0.9F * floats + 0.1F * test::random_matrix(200, 30, 2);
    layer_inputs known(30);
    known.add(x, floats);
    matrix const w = test::random_matrix(150, 30, 3);
    matrix const q = w + 0.1F * test::random_matrix(150, 30, 4);
    double const expected =
        (floats * w.transpose() - x * q.transpose()).cast<double>().squaredNorm() / static_cast<double>(x.rows());
    EXPECT_NEAR(known.output_error(w, q), expected, 1e-5 * expected);
}

TEST(layer_inputs, refuses_streams_of_different_shapes) {
    layer_inputs known(5);
    EXPECT_THROW(known.add(matrix::Zero(3, 5), matrix::Zero(4, 5)), error);
    EXPECT_THROW(known.add(matrix::Zero(3, 4), matrix::Zero(3, 4)), error);
    EXPECT_THROW(known.add(matrix::Zero(3, 4)), error);
    known.add(matrix::Zero(3, 5));
    EXPECT_THROW(known.add(matrix::Zero(3, 5), matrix::Zero(3, 5)), error); // too late
    layer_inputs both(5);
    both.add(matrix::Zero(3, 5), matrix::Zero(3, 5));
    EXPECT_THROW(both.add(matrix::Zero(3, 5)), error);
}

TEST(layer_inputs, factors_for_what_was_asked_and_seen_last) {
    layer_inputs known(40);
    known.add(test::random_matrix(100, 40, 1));
    hessian_factor const& f = known.factor({0.01, false});
    EXPECT_EQ(f.r, factor(known.hessian(), {0.01, false}).r);
    double const* const r = f.r.data();
    EXPECT_EQ(known.factor({0.01, false}).r.data(), r); // not computed again
    EXPECT_EQ(known.factor({0.1, false}).r, factor(known.hessian(), {0.1, false}).r);
    EXPECT_EQ(known.factor({0.1, true}).r, factor(known.hessian(), {0.1, true}).r);
    known.add(test::random_matrix(100, 40, 2));
    EXPECT_EQ(known.factor({0.1, true}).r, factor(known.hessian(), {0.1, true}).r);
}

/// What is known of mapped inputs is what would be known had they been mapped before.
void expect_same(layer_inputs const& found, layer_inputs const& expected, std::string const& kind) {
    auto const close = [&](auto const& a, auto const& b, double most, char const* what) {
        ASSERT_EQ(shape_of(a), shape_of(b)) << kind << ' ' << what;
        double const size = b.size() > 0 ? static_cast<double>(b.cwiseAbs().maxCoeff()) : 0;
        EXPECT_LE(b.size() > 0 ? static_cast<double>((a - b).cwiseAbs().maxCoeff()) : 0, most * size) << kind << what;
    };
    EXPECT_EQ(found.hessian().tokens(), expected.hessian().tokens());
    // Those of mapped tokens have the rounding of floats, which mapping the sums of doubles has not.
    close(found.hessian().sum(), expected.hessian().sum(), 2e-6, "hessian");
    close(found.kept(), expected.kept(), 0, "kept");
    close(found.largest(), expected.largest(), 0, "largest");
    ASSERT_EQ(found.has_difference(), expected.has_difference());
    if (found.has_difference()) {
        close(found.difference(), expected.difference(), 5e-6, "difference");
    }
}

TEST(layer_inputs, mapped_is_what_is_known_of_mapped_inputs) {
    index_t const features = 32;
    matrix const x = test::random_matrix(100, features, 1);
    matrix const floats = x + 0.1F * test::random_matrix(100, features, 2);
    matrix const w = test::random_matrix(8, features, 3);
    for (std::string const kind : test::kinds_of_maps) {
        input_map const map = test::random_map(kind, features, 8);
        expect_same(layer_inputs::of(x).mapped(map), layer_inputs::of(map.apply(x)), kind);
        layer_inputs known(features);
        known.keep(100);
        known.add(x, floats);
        layer_inputs of_mapped(features);
        of_mapped.keep(100);
        of_mapped.add(map.apply(x), map.apply(floats));
        layer_inputs const& mapped = known.mapped(map);
        if (kind.find('h') == kind.npos) { // else only the inputs of the quantized model are known
            expect_same(mapped, of_mapped, kind);
        }
        double const error = known.output_error(w, 0.9F * w);
        EXPECT_NEAR(mapped.output_error(map.of_weights(w), map.of_weights(0.9F * w)), error, 1e-5 * error) << kind;
    }
}

TEST(layer_inputs, mapped_has_both_sides_of_the_sums_to_double_accuracy) {
    index_t const features = 32;
    matrix const x = test::random_matrix(100, features, 1);
    layer_inputs known(features);
    known.add(x, test::random_matrix(100, features, 2));
    basic_matrix<double> const full = known.hessian().sum().selfadjointView<Eigen::Upper>();
    for (std::string const kind : test::kinds_of_maps) {
        input_map const map = test::random_map(kind, features, 8);
        Eigen::MatrixXd const m = test::dense_of(map, features);
        basic_matrix<double> const h = known.mapped(map).hessian().sum().selfadjointView<Eigen::Upper>();
        basic_matrix<double> const expected = m * full * m.transpose();
        EXPECT_LE((h - expected).cwiseAbs().maxCoeff(), 1e-12 * expected.cwiseAbs().maxCoeff()) << kind;
        basic_matrix<double> const c = m * known.difference() * m.transpose();
        EXPECT_LE((known.mapped(map).difference() - c).cwiseAbs().maxCoeff(), 1e-12 * c.cwiseAbs().maxCoeff()) << kind;
    }
}

TEST(layer_inputs, mapped_knows_the_largest_only_where_it_can) {
    matrix const x = test::random_matrix(100, 32, 1);
    layer_inputs none_kept(32);
    none_kept.add(x);
    layer_inputs some_kept(32);
    some_kept.keep(50);
    some_kept.add(x);
    for (std::string const kind : test::kinds_of_maps) {
        input_map const map = test::random_map(kind, 32, 8);
        float_vector const expected = map.apply(x).cwiseAbs().colwise().maxCoeff().transpose();
        for (layer_inputs const& known : {none_kept, some_kept}) {
            float_vector const largest = known.mapped(map).largest();
            EXPECT_EQ(largest, kind.find('h') == kind.npos ? expected : float_vector()) << kind;
        }
        EXPECT_EQ(layer_inputs(hessian::of(x)).mapped(map).largest().size(), 0) << kind;
    }
}

TEST(layer_inputs, mapped_is_made_once_for_a_map_and_what_was_seen) {
    layer_inputs known = layer_inputs::of(test::random_matrix(100, 32, 1));
    input_map const map = test::random_map("ph", 32, 8);
    layer_inputs const* const first = &known.mapped(map);
    EXPECT_EQ(&known.mapped(map), first);
    EXPECT_EQ(&known.mapped({}), &known);
    layer_inputs const other = known.mapped(test::random_map("h", 32, 4)); // a copy, which outlives the next map
    expect_same(known.mapped(map), layer_inputs::of(map.apply(test::random_matrix(100, 32, 1))), "again");
    known.add(test::random_matrix(50, 32, 2));
    EXPECT_EQ(known.mapped(map).hessian().tokens(), 150);
    EXPECT_EQ(other.hessian().tokens(), 100);
}

TEST(layer_inputs, restricted_is_what_is_known_of_some_inputs) {
    matrix const x = test::random_matrix(100, 32, 1);
    std::vector<std::int32_t> const some{1, 2, 5, 30};
    expect_same(layer_inputs::of(x).restricted_to(some), layer_inputs::of(take_columns(x, some)), "restricted");
}

TEST(layer_inputs, what_they_do_not_know_is_named) {
    auto known = layer_inputs::of(test::random_matrix(9, 5, 1));
    matrix const w = test::random_matrix(3, 5, 2);
    EXPECT_EQ(failure_message([&] { known.keep(3); }), "inputs: can be kept only from the first on");
    EXPECT_EQ(failure_message([] { layer_inputs(5).keep(-1); }),
              "inputs: its number of tokens to keep is -1, not 0 or more");
    EXPECT_EQ(failure_message([&] { known.difference(); }), "inputs: of the float model are needed too");
    EXPECT_EQ(failure_message([&] { known.difference_error(w); }), "inputs: of the float model are needed too");
    EXPECT_EQ(failure_message([&] { known.output_error(w, w); }), "inputs: of the float model are needed too");
    EXPECT_EQ(failure_message([&] { known.output_error(w, w.topRows(2)); }),
              "weights: have another shape than the quantized ones");
    EXPECT_EQ(failure_message([&] { known.output_error(w.leftCols(4), w.leftCols(4)); }),
              "hessian: has 5 features, the weights have 4 columns");
}

} // namespace

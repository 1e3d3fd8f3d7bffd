// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "detent/core/thread_team.hpp"
#include "detent/grid/fp_grid.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/io/layout_detent.hpp"
#include "detent/matrix/dequantize.hpp"
#include "detent/quantizer/activations.hpp"
#include "detent/quantizer/quantizer.hpp"
#include "detent/scale/mse.hpp"
#include "detent/scale/truncated.hpp"
#include "detent/solver/clipped.hpp"
#include "detent/solver/gptq.hpp"
#include "detent/solver/obq.hpp"
#include "detent/solver/owq.hpp"
#include "detent/solver/searched.hpp"
#include "detent/solver/transformed.hpp"
#include "detent/transform/hadamard.hpp"
#include "grid/own_grid.hpp"
#include "io/failure_message.hpp"
#include "io/temporary_directory.hpp"
#include "nn/random_matrix.hpp"
#include "solver/correlated_inputs.hpp"

namespace {

using namespace detent;
using test::correlated_inputs;
using test::random_matrix;

/// A solver as a user would write one: every weight gets the same code.
struct constant_solver {
    using evidence = no_evidence;

    code chosen = 3;

    solution solve(matrix_view w, no_evidence, problem const& p, executor_ref executor) const {
        solution s = p.begin(w);
        p.fit_all(w, s, executor);
        std::ranges::fill(s.codes, chosen);
        return s;
    }

    friend bool operator==(constant_solver, constant_solver) = default;
};
static_assert(Solver<constant_solver>);

TEST(quantizer, composes_grid_granularity_and_range) {
    matrix const w = random_matrix(10, 40, 1);
    constexpr quantizer<int_grid<4>, per_group<16>> q;
    auto const result = q(w);
    solution const s = rtn{}.solve(w, {}, problem_of{int_grid<4>{}, per_group<16>{}, minmax_range{}});
    EXPECT_EQ(result.packed(), pack(s));
    quantizer<e2m1, per_block<>, rtn, mse_range> const other{
        .granularity = {4, 8}, .range = {.steps = 10}, .format = float_format::bf16};
    solution const t =
        rtn{}.solve(w, {}, problem_of{e2m1{}, per_block<>{4, 8}, mse_range{.steps = 10}, float_format::bf16});
    EXPECT_EQ(other(w).packed(), pack(t));
    EXPECT_EQ(other(w).granularity(), (per_block<>{4, 8}));
}

TEST(quantizer, takes_a_users_grid_and_solver) {
    matrix const w = random_matrix(10, 40, 1);
    auto const powers = quantizer<test::powers_of_two>{}(w);
    Eigen::VectorXf const x = random_matrix(40, 1, 2);
    Eigen::VectorXf const y = powers * x;
    EXPECT_LE((y - dequantize(powers.packed()) * x).cwiseAbs().maxCoeff(), 1e-4);
    EXPECT_LE((dequantize(powers.packed()) - w).cwiseAbs().maxCoeff(), w.cwiseAbs().maxCoeff() / 4);

    auto const constant = quantizer<int_grid<4>, per_tensor, constant_solver>{}(w);
    float const expected = constant.at(0, 0);
    EXPECT_EQ(dequantize(constant.packed()), matrix::Constant(10, 40, expected));
}

/// Finds the nearest number by distances in float: far away they are all equal, and 0 comes first.
struct nearest_from_zero {
    static constexpr int bits = 2;
    static constexpr std::array<float, 4> values{0, -1, 1, 2};
    float unit = 1;

    constexpr float lowest() const { return -unit; }
    constexpr float highest() const { return 2 * unit; }
    float decode(code c) const { return values[c] * unit; }
    code encode(float x) const {
        std::size_t best = 0;
        for (std::size_t c = 1; c < values.size(); ++c) {
            best = std::abs(values[c] * unit - x) < std::abs(values[best] * unit - x) ? c : best;
        }
        return static_cast<code>(best);
    }
    friend constexpr bool operator==(nearest_from_zero, nearest_from_zero) = default;
};

/// Loses the last code.
struct careless {
    using evidence = no_evidence;
    solution solve(matrix_view w, no_evidence, problem const& p, executor_ref executor = {}) const {
        solution s = rtn{}.solve(w, {}, p, executor);
        s.codes.pop_back();
        return s;
    }
    friend bool operator==(careless, careless) = default;
};

/// A granularity whose tiles may be of nothing.
struct own_tiles {
    extents shape;
    extents tile(extents) const { return shape; }
    friend constexpr bool operator==(own_tiles, own_tiles) = default;
};

TEST(quantizer, names_what_is_wrong_in_release_builds_too) {
    matrix const w = random_matrix(6, 32, 1);
    hessian const h = hessian::of(correlated_inputs(60, 32, 1));
    auto const message = [&](auto const& q) { return failure_message([&] { static_cast<void>(q(w, h)); }); };
    auto const rounded = [&](auto const& q) { return failure_message([&] { static_cast<void>(q(w)); }); };
    EXPECT_EQ(rounded(quantizer<int_grid<4>, per_group<>>{.granularity = {0}}),
              "per_group: its width is 0, not positive");
    EXPECT_EQ(message(quantizer<int_grid<4>, per_group<>, gptq<>>{.granularity = {-5}}),
              "per_group: its width is -5, not positive");
    EXPECT_EQ(rounded(quantizer<int_grid<4>, own_tiles>{.granularity = {{1, 0}}}),
              "granularity: makes tiles of 1 x 0 weights");
    EXPECT_EQ(rounded(quantizer<int_grid<4>, own_tiles>{.granularity = {{6, 100}}}), "");
    EXPECT_EQ(message(quantizer<int_grid<4>, per_channel, gptq<>>{.solver = {.leaf = 0}}),
              "gptq: its leaf is 0, not positive");
    EXPECT_EQ(message(quantizer<int_grid<4>, per_channel, gptq<>>{.solver = {.damping = -5}}),
              "hessian: its damping is -5.000000, not finite and 0 or more");
    EXPECT_EQ(rounded(quantizer<nearest_from_zero>{}),
              "grid: what lies far beyond lowest() or highest() is not encoded as that end");
    EXPECT_EQ(rounded(quantizer<int_grid<4>, per_channel, careless>{}), "solution: has not one code for each weight");
    EXPECT_EQ(rounded(quantizer<int_grid<4>, per_channel, rtn, mse_range>{.range = {.steps = 0}}),
              "mse_range: its number of steps is 0, not positive");
    EXPECT_EQ(rounded(quantizer<int_grid<4>, per_channel, rtn, truncated_range>{.range = {.norm = 0}}),
              "truncated_range: its norm is 0.000000, not from 1 to 1000");
    EXPECT_EQ(failure_message([&] { (quantizer<int_grid<4>>{}(matrix(0, 5))); }), "weights: are empty");
    EXPECT_EQ(failure_message([&] { (quantizer<int_grid<4>>{}(matrix(5, 0))); }), "weights: are empty");
    quantizer<int_grid<4>, per_channel, gptq<>> const q;
    EXPECT_EQ(failure_message([&] { static_cast<void>(q(w, hessian(32))); }),
              "hessian: has seen no tokens (only with or_rtn are weights then rounded to nearest)");
    EXPECT_EQ(
        (quantizer<int_grid<4>, per_channel, gptq<>>{.solver = {.or_rtn = true}}(w, hessian(32)).report().fallback),
        "no input was ever seen");
    EXPECT_EQ(failure_message([&] { static_cast<void>(q(w, hessian(31))); }),
              "hessian: has 31 features, the weights have 32 columns");
    EXPECT_EQ(failure_message([&] { static_cast<void>(q(w, h).at(6, 0)); }), "weights: have no such place");
    quantizer<int_grid<4>, per_channel, rtn, minmax_range, activations<int_grid<8>, per_group<>>> const w4a8{
        .activations = {.granularity = {-1}}};
    EXPECT_EQ(message(w4a8), "per_group: its width is -1, not positive");
    auto const linear = quantizer<int_grid<4>, per_channel, rtn, minmax_range, activations<int_grid<8>>>{}(w, h);
    EXPECT_EQ(failure_message([&] { static_cast<void>(linear(matrix::Zero(2, 31))); }),
              "inputs: have 31 features, the weights have 32 columns");
}

TEST(quantizer, a_weight_is_the_nearest_number_of_its_tile) {
    matrix const w = random_matrix(6, 30, 1);
    auto const result = quantizer<int_grid<8, zero::none>>{}(w);
    EXPECT_LE((dequantize(result.packed()) - w).cwiseAbs().maxCoeff(), w.cwiseAbs().maxCoeff() / 250);
    EXPECT_EQ(result.bits_per_weight(), 8 + 16.0 / 30);
}

/// Whether a quantizer takes a factored Hessian.
template <class Q>
concept takes_a_factor = requires(Q const& q, matrix const& w, hessian_factor const& f) {
    q(w, f);
};

/// From the inputs, their Hessian or a factor of it that other layers share, the same bits come out.
template <class Q> void expect_shared(Q const& q) {
    matrix const w = random_matrix(12, 48, 1);
    matrix const other = random_matrix(7, 48, 2);
    layer_inputs const known = layer_inputs::of(correlated_inputs(300, 48, 1));
    hessian const& h = known;
    packed_matrix const expected = q(w, h).packed();
    packed_matrix const expected_other = q(other, h).packed();
    EXPECT_EQ(q(w, known).packed(), expected);
    EXPECT_EQ(q(other, known).packed(), expected_other);
    if constexpr (takes_a_factor<Q>) {
        hessian_factor const f = factor(h, q.solver.factoring());
        EXPECT_EQ(q(w, f).packed(), expected);
        EXPECT_EQ(q(other, f).packed(), expected_other);
    }
    thread_team two(2);
    for (auto const& all :
         {q.quantize_all({w, other}, known), q.quantize_all({w, other}, h), q.quantize_all({w, other}, known, two)}) {
        ASSERT_EQ(all.size(), 2U);
        EXPECT_EQ(all[0].packed(), expected);
        EXPECT_EQ(all[1].packed(), expected_other);
    }
}

TEST(quantizer, layers_that_read_the_same_share_what_is_known_of_it) {
    expect_shared(quantizer<int_grid<3>, per_group<16>, gptq<>>{});
    expect_shared(quantizer<int_grid<3>, per_group<16>, gptq<float>>{.solver = {.activation_order = true}});
    expect_shared(quantizer<int_grid<3>, per_channel, obq>{});
    expect_shared(quantizer<int_grid<3>, per_group<16>, clipped<gptq<>>>{.solver = {.inner = {.damping = 0.1}}});
    expect_shared(quantizer<int_grid<3>, per_group<16>, owq<>>{.solver = {.columns = 2}});
    expect_shared(quantizer<int_grid<3>, per_group<16>, searched<gptq<>>>{});
    expect_shared(quantizer<int_grid<3>, per_group<16>, transformed<hadamard<16>, gptq<>>>{});
    expect_shared(quantizer<int_grid<3>, per_group<16>>{});
    static_assert(takes_a_factor<quantizer<int_grid<3>, per_channel, clipped<obq>>>);
    static_assert(!takes_a_factor<quantizer<int_grid<3>, per_channel, owq<>>>);
    static_assert(!takes_a_factor<quantizer<int_grid<3>, per_channel, gptaq<>>>);
    static_assert(!takes_a_factor<quantizer<int_grid<3>>>);
}

TEST(quantizer, layers_share_rounded_inputs_too) {
    quantizer<int_grid<4>, per_group<16>, gptq<>, minmax_range, activations<int_grid<8>, per_tensor>> const q;
    matrix const w = random_matrix(12, 48, 1);
    matrix const other = random_matrix(7, 48, 2);
    layer_inputs const known = layer_inputs::of(correlated_inputs(300, 48, 1));
    auto const all = q.quantize_all({w, other}, known);
    ASSERT_EQ(all.size(), 2U);
    EXPECT_EQ(all[0].input(), all[1].input());
    EXPECT_EQ(all[1].weights().packed(), q(other, known).weights().packed());
    EXPECT_EQ(failure_message([&] { q(w, known.hessian()); }),
              "inputs: that share a range must all be known, and kept");
}

/// 512 weights, of which every 37th is large.
matrix golden_weights() {
    std::uint32_t state = 12345;
    matrix w(1, 512);
    for (index_t i = 0; i < w.size(); ++i) {
        double sum = 0;
        for (int draw = 0; draw < 4; ++draw) {
            state = state * 1664525 + 1013904223;
            sum += (state >> 8) * 0x1p-24 - 0.5;
        }
        w(0, i) = static_cast<float>(sum * (i % 37 == 0 ? 4 : 1));
    }
    return w;
}

/// The codes of the first weights, as hexadecimal digits; -0 is 0, as ggml has it.
std::string first_codes(packed_matrix const& w, index_t count) {
    std::string digits;
    for (index_t k = 0; k < count; ++k) {
        digits += "0123456709abcdef"[w.code_at(0, k)];
    }
    return digits;
}

std::vector<int> bytes_of_scales(packed_matrix const& w) {
    std::vector<int> bytes;
    for (float const s : w.scales.scales) {
        bytes.push_back(byte_of(w.scales.format, s));
    }
    return bytes;
}

TEST(quantizer, mxfp4_and_nvfp4_are_those_of_ggml) {
    matrix const w = golden_weights();
    auto const mx = quantizer<e2m1, per_group<32>>{.format = scale_kind::e8m0}(w).packed();
    EXPECT_EQ(bytes_of_scales(mx),
              (std::vector{126, 125, 125, 125, 125, 125, 126, 125, 125, 126, 125, 126, 125, 125, 125, 125}));
    EXPECT_EQ(first_codes(mx, 32), "f01132ab1a3210211a22431919120902");
    // ggml's blocks of NVFP4 have no second level.
    solution const s = rtn{}.solve(w, {}, problem_of{e2m1{}, per_group<16>{}, absmax_range{}, scale_kind::ue4m3});
    packed_matrix const nv = pack(s);
    EXPECT_EQ(bytes_of_scales(nv), (std::vector{0x30, 0x22, 0x24, 0x21, 0x25, 0x25, 0x29, 0x25, 0x28, 0x1d, 0x23,
                                                0x22, 0x25, 0x31, 0x28, 0x24, 0x24, 0x21, 0x2e, 0x21, 0x24, 0x23,
                                                0x20, 0x2b, 0x20, 0x2a, 0x22, 0x28, 0x24, 0x28, 0x24, 0x24}));
    EXPECT_EQ(first_codes(nv, 32), "f01132ab1a3210212d45762c2b451c96");
}

TEST(quantizer, weights_with_scales_of_8_bits_stay_as_they_are_when_quantized_again) {
    matrix const w = random_matrix(10, 96, 3);
    quantizer<e2m1, per_group<32>> const mxfp4{.format = scale_kind::e8m0};
    auto const mx = mxfp4(w).packed();
    EXPECT_EQ(mxfp4(dequantize(mx)).packed(), mx);
    quantizer<e4m3, per_group<32>> const mxfp8{.format = scale_kind::e8m0};
    auto const mx8 = mxfp8(w).packed();
    EXPECT_EQ(mxfp8(dequantize(mx8)).packed(), mx8);
    // The largest weight is no more than 6 * 448 units in floats, so the unit is the same but for its last bit.
    quantizer<e2m1, per_group<16>> const nvfp4{.format = scale_kind::ue4m3};
    auto const nv = nvfp4(w).packed();
    auto const again = nvfp4(dequantize(nv)).packed();
    EXPECT_EQ(again.codes, nv.codes);
    EXPECT_EQ(bytes_of_scales(again), bytes_of_scales(nv));
    EXPECT_FLOAT_EQ(again.scales.format.unit, nv.scales.format.unit);
}

/// The second level is that of the whole matrix, each scale is exact in 8 bits, products are those of the numbers, and
/// a file keeps every bit.
void expect_composed(quantized_matrix<e2m1, per_group<16>> const& q, matrix const& w, scale_format expected) {
    packed_matrix const& packed = q.packed();
    EXPECT_EQ(packed.scales.format, expected);
    for (float const s : packed.scales.scales) {
        ASSERT_EQ(s, store(expected, s));
        ASSERT_EQ(s, scale_of(expected, byte_of(expected, s)));
    }
    matrix const weights = dequantize(packed);
    EXPECT_LE((weights - w).squaredNorm(), 0.1 * w.squaredNorm());
    Eigen::VectorXf const x = random_matrix(w.cols(), 1, 2);
    Eigen::VectorXf const y = q * x;
    EXPECT_LE((y - weights * x).cwiseAbs().maxCoeff(), 1e-6 * weights.cwiseAbs().maxCoeff() * x.cwiseAbs().sum());
    temporary_directory const directory;
    io::safetensors_writer writer;
    io::add_packed(writer, "a", packed);
    writer.save(directory / "model.safetensors");
    io::checkpoint const file(directory / "model.safetensors");
    EXPECT_EQ(io::read_detent(io::tensor_reader(file), "a", packed.shape()), packed);
}

TEST(quantizer, scales_of_8_bits_go_with_any_solver) {
    matrix w = random_matrix(12, 80, 1);
    w(11, 79) = 8; // the unit is that of all weights, wherever a solver begins
    hessian const h = hessian::of(correlated_inputs(300, 80, 1));
    scale_format const nv{scale_kind::ue4m3, 8.0F / (6 * 448)};
    for (scale_format const format : {scale_format(scale_kind::e8m0), nv}) {
        expect_composed(quantizer<e2m1, per_group<16>>{.format = format.kind}(w), w, format);
        expect_composed(quantizer<e2m1, per_group<16>, gptq<>>{.format = format.kind}(w, h), w, format);
        expect_composed(
            quantizer<e2m1, per_group<16>, gptq<>>{.solver = {.activation_order = true}, .format = format.kind}(w, h),
            w, format);
        expect_composed(quantizer<e2m1, per_group<16>, obq>{.format = format.kind}(w, h), w, format);
        for (index_t const columns : {1, 17, 40}) { // 40 fill groups of their own
            expect_composed(quantizer<e2m1, per_group<16>, owq<>, mse_range>{.solver = {.columns = columns},
                                                                             .format = format.kind}(w, h),
                            w, format);
        }
    }
}

template <class Q> matrix decoded(Q const& quantizer, matrix const& w) { return dequantize(quantizer(w).packed()); }

TEST(quantizer, zeros_are_as_near_to_0_as_the_grid_can_say) {
    matrix w = matrix::Zero(4, 64);
    auto const expect = [&](auto grid, scale_kind kind, float most) {
        using grid_type = decltype(grid);
        EXPECT_LE(decoded(quantizer<grid_type>{.format = kind}, w).cwiseAbs().maxCoeff(), most);
        EXPECT_LE(decoded(quantizer<grid_type, per_group<16>, rtn, mse_range>{.format = kind}, w).cwiseAbs().maxCoeff(),
                  most);
        EXPECT_EQ((quantizer<grid_type, per_group<16>>{.format = kind}(w).report().clamped_scales), 0);
    };
    for (auto const& [kind, most] : {std::pair{scale_kind::f16, 0x1p-24F},
                                     {scale_kind::bf16, 0x1p-126F},
                                     {scale_kind::f32, 0x1p-126F},
                                     {scale_kind::e8m0, 0x1p-127F},
                                     {scale_kind::ue4m3, 0x1p-126F}}) {
        expect(int_grid<1, zero::none>{}, kind, most);
        expect(test::uneven_pair{}, kind, most);
        expect(test::powers_of_two{}, kind, most);
        expect(int_grid<1>{}, kind, 0);
        expect(e2m1{}, kind, 0);
    }
    w.block(1, 16, 1, 16).setConstant(-3); // one group of a matrix that is zero elsewhere
    auto const result = quantizer<int_grid<1, zero::none>, per_group<16>>{}(w);
    EXPECT_LE((dequantize(result.packed()) - w).cwiseAbs().maxCoeff(), 0x1p-24F);
    EXPECT_EQ(result.report().clamped_scales, 0);
}

TEST(quantizer, one_bit_without_zero_has_the_error_of_least_squares) {
    matrix const w = random_matrix(8, 4096, 5);
    auto const error = [&](auto const& q) { return (decoded(q, w) - w).norm() / w.norm(); };
    EXPECT_NEAR(error(quantizer<int_grid<1, zero::none>>{}), 0.603, 0.005);
    EXPECT_GT(error(quantizer<int_grid<1, zero::none>, per_channel, rtn, absmax_range>{}), 1.5);
}

TEST(quantizer, scales_that_do_not_fit_are_counted) {
    matrix const w = 1e6F * random_matrix(10, 400, 1);
    auto const relative = [&](auto const& q, matrix const& x) { return (decoded(q, x) - x).norm() / x.norm(); };
    quantizer<int_grid<4>> const f16;
    EXPECT_EQ(f16(w).report().clamped_scales, 10);
    EXPECT_GT(relative(f16, w), 0.5);
    quantizer<int_grid<4>> const bf16{.format = float_format::bf16};
    EXPECT_EQ(bf16(w).report().clamped_scales, 0);
    EXPECT_LT(relative(bf16, w), 0.15);
    EXPECT_EQ((quantizer<int_grid<4>, per_group<40>>{}(w).report().clamped_scales), 100);
    EXPECT_EQ((quantizer<e2m1, per_block<2, 100>>{}(w).report().clamped_scales), 20);
    EXPECT_EQ((quantizer<int_grid<4>, per_tensor, constant_solver>{}(w).report().clamped_scales), 1);
    hessian const h = hessian::of(correlated_inputs(500, 400, 1));
    matrix one = random_matrix(10, 400, 1);
    one.row(7) *= 1e6F;
    EXPECT_EQ((quantizer<int_grid<4>, per_channel, gptq<>>{}(one, h).report().clamped_scales), 1);
    EXPECT_EQ((quantizer<int_grid<4>, per_group<40>, gptq<>>{.solver = {.activation_order = true}}(one, h)
                   .report()
                   .clamped_scales),
              10);
    EXPECT_EQ((quantizer<int_grid<4>, per_channel, obq>{}(one, h).report().clamped_scales), 1);
    owq<> const weak{.columns = 3, .format = float_format::f32};
    EXPECT_EQ((quantizer<int_grid<4>, per_channel, owq<>>{.solver = weak}(one, h).report().clamped_scales), 1);
    EXPECT_EQ((quantizer<e2m1, per_channel>{.format = scale_kind::e8m0}(w).report().clamped_scales), 0);
    EXPECT_EQ((quantizer<e2m1, per_group<16>>{.format = scale_kind::ue4m3}(w).report().clamped_scales), 0);
    // Where others are so much larger, the scales are too small.
    EXPECT_EQ((quantizer<e2m1, per_channel>{.format = scale_kind::ue4m3}(one).report().clamped_scales), 9);
    EXPECT_EQ((quantizer<int_grid<4>>{}(1e-9F * w / 1e6F).report().clamped_scales), 10);
    EXPECT_EQ((quantizer<int_grid<4>>{.format = float_format::f32}(1e-9F * w / 1e6F).report().clamped_scales), 0);
}

TEST(quantizer, scales_may_be_subnormal_halves) {
    // Rounding such a scale moves it by up to 2^-25; a weight is at most 15 scales, and half a scale more from its
    // number.
    for (float const size : {1e-4F, 1e-5F, 3e-6F, 1e-6F}) {
        matrix const w = size * random_matrix(10, 400, 1);
        auto const result = quantizer<int_grid<4>>{}(w);
        EXPECT_EQ(result.report().clamped_scales, 0) << size;
        matrix const exact = decoded(quantizer<int_grid<4>>{.format = float_format::f32}, w);
        matrix const numbers = dequantize(result.packed());
        for (index_t row = 0; row < w.rows(); ++row) {
            float const scale = result.packed().scales.at(row, 0).scale;
            EXPECT_LT(scale, 0x1p-14F);
            float const most = 0.5F * scale + 15 * 0x1p-25F;
            EXPECT_LE((numbers.row(row) - w.row(row)).cwiseAbs().maxCoeff(), 1.01F * most) << size;
        }
        EXPECT_LE((numbers - w).norm(), (exact - w).norm() + 4 * 0x1p-25F * std::sqrt(4000.0F)) << size;
        // Products and files keep them.
        Eigen::VectorXf const x = random_matrix(400, 1, 2);
        Eigen::VectorXf const y = result * x;
        EXPECT_LE((y - numbers * x).cwiseAbs().maxCoeff(), 1e-4F * size);
        temporary_directory const directory;
        io::safetensors_writer writer;
        io::add_packed(writer, "a", result.packed());
        writer.save(directory / "model.safetensors");
        io::checkpoint const file(directory / "model.safetensors");
        EXPECT_EQ(io::read_detent(io::tensor_reader(file), "a", result.shape()), result.packed());
    }
}

} // namespace

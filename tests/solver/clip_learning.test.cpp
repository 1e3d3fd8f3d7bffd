// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "detent/core/thread_team.hpp"
#include "detent/grid/codebook_grid.hpp"
#include "detent/grid/fp_grid.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/scale/absmax.hpp"
#include "detent/scale/minmax.hpp"
#include "detent/solver/clip_learning.hpp"
#include "io/failure_message.hpp"
#include "solver/correlated_inputs.hpp"

namespace {

using namespace detent;
using test::correlated_inputs;
using test::random_matrix;

/// Clips of one row of tiles, learned slowly: all in double, and slopes are differences of the loss of a layer whose
/// rounding is frozen, where a number is its weight and what rounding added in units of the scale, or one end of the
/// grid in such units.
class slow_learner {
public:
    slow_learner(matrix const& w, Eigen::MatrixXd const& h, index_t width, problem const& p)
        : w_(w), h_(h), width_(width),
          p_(p), clip_{logits(ceil_div(w.cols(), width)), logits(ceil_div(w.cols(), width))} {}

    std::vector<tile_scale> run(clip_learning how) {
        for (double const part : {1.0, 0.9, 0.8, 0.7, 0.6, 0.5}) {
            double const logit = part < 1 ? std::log(part / (1 - part)) : 40;
            if (try_clips({logits(clip_[0].size(), logit), logits(clip_[0].size(), logit)})) {
                clip_ = {logits(clip_[0].size(), std::min(logit, 4.0)), logits(clip_[0].size(), std::min(logit, 4.0))};
            }
        }
        double const unit = least_;
        std::array<std::vector<double>, 2> mean{logits(clip_[0].size(), 0), logits(clip_[0].size(), 0)};
        auto square = mean;
        for (index_t step = 1; step <= how.steps; ++step) {
            try_clips(clip_);
            auto const slopes = differences(unit);
            double const rate = how.rate * static_cast<double>(how.steps - step + 1) / static_cast<double>(how.steps);
            for (std::size_t side = 0; side < 2; ++side) {
                for (std::size_t t = 0; t < slopes[side].size(); ++t) { // Adam
                    double const g = slopes[side][t];
                    mean[side][t] = 0.9 * mean[side][t] + 0.1 * g;
                    square[side][t] = 0.999 * square[side][t] + 0.001 * g * g;
                    double const m = mean[side][t] / (1 - std::pow(0.9, step));
                    double const v = square[side][t] / (1 - std::pow(0.999, step));
                    clip_[side][t] -= rate * m / (std::sqrt(v) + 1e-8);
                }
            }
        }
        try_clips(clip_);
        return best_;
    }

private:
    using clips = std::array<std::vector<double>, 2>; // of the low and the high end of each tile

    static std::vector<double> logits(std::size_t tiles, double logit = 4) { return std::vector<double>(tiles, logit); }
    static std::vector<double> logits(index_t tiles) { return logits(static_cast<std::size_t>(tiles)); }
    static double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

    matrix tile(std::size_t t) const {
        index_t const col = static_cast<index_t>(t) * width_;
        return w_.middleCols(col, std::min(width_, w_.cols() - col));
    }

    /// From end to end of the clipped range, or twice the farther of both.
    double width_of(clips const& c, std::size_t t) const {
        double const low = std::min(0.0F, tile(t).minCoeff()) * sigmoid(c[0][t]);
        double const high = std::max(0.0F, tile(t).maxCoeff()) * sigmoid(c[1][t]);
        return p_.has_zero() ? high - low : 2 * std::max(high, -low);
    }

    bool try_clips(clips const& c) {
        std::vector<tile_scale> scales;
        matrix q(w_.rows(), w_.cols());
        for (std::size_t t = 0; t < c[0].size(); ++t) {
            matrix const x = tile(t);
            interval const kept{static_cast<float>(std::min(0.0F, x.minCoeff()) * sigmoid(c[0][t])),
                                static_cast<float>(std::max(0.0F, x.maxCoeff()) * sigmoid(c[1][t]))};
            scales.push_back(lay_over(p_.numbers(), p_.has_zero(), kept, p_.format()));
            for (index_t row = 0; row < x.rows(); ++row) {
                for (index_t k = 0; k < x.cols(); ++k) {
                    code unused = 0;
                    p_.round(1, &x(row, k), &scales[t].scale, &scales[t].zero, &unused,
                             &q(row, static_cast<index_t>(t) * width_ + k));
                }
            }
        }
        now_ = scales;
        rounded_ = q;
        double const loss = loss_of(q.cast<double>());
        if (loss < least_) {
            least_ = loss;
            best_ = scales;
            return true;
        }
        return false;
    }

    double loss_of(Eigen::MatrixXd const& q) const {
        Eigen::MatrixXd const d = q - w_.cast<double>();
        return (d * h_).cwiseProduct(d).sum();
    }

    /// Central differences of the frozen loss.
    clips differences(double unit) const {
        clips slopes = clip_;
        for (std::size_t side = 0; side < 2; ++side) {
            for (std::size_t t = 0; t < clip_[side].size(); ++t) {
                constexpr double h = 1e-4;
                clips up = clip_;
                clips down = clip_;
                up[side][t] += h;
                down[side][t] -= h;
                slopes[side][t] = (frozen_loss(up, t) - frozen_loss(down, t)) / (2 * h) / unit;
            }
        }
        return slopes;
    }

    double frozen_loss(clips const& c, std::size_t t) const {
        double const stretched = width_of(c, t) / width_of(clip_, t);
        tile_scale const s = now_[t];
        interval const reach = reach_of(p_.table());
        Eigen::MatrixXd q = rounded_.cast<double>();
        for (index_t col = static_cast<index_t>(t) * width_; col < static_cast<index_t>(t) * width_ + tile(t).cols();
             ++col) {
            for (index_t row = 0; row < w_.rows(); ++row) {
                float const x = w_(row, col);
                bool const inside = x >= s.scale * (reach.low - s.zero) && x <= s.scale * (reach.high - s.zero);
                double const kept = inside ? x : 0;
                q(row, col) = kept + (q(row, col) - kept) * stretched;
            }
        }
        return loss_of(q);
    }

    matrix w_;
    Eigen::MatrixXd h_;
    index_t width_;
    problem const& p_;
    clips clip_;
    double least_ = std::numeric_limits<double>::infinity();
    std::vector<tile_scale> best_;
    std::vector<tile_scale> now_; // after `try_clips`
    matrix rounded_;
};

void expect_learned_like_slowly(problem const& p) {
    matrix const w = random_matrix(19, 48, 1);
    matrix const h = symmetric_floats(hessian::of(correlated_inputs(200, 48, 1)).sum());
    clip_learning const how{.steps = 8, .rate = 0.1};
    solution const s = learn_clips(w, h, p, how);
    for (index_t i = 0; i < s.scales.tiles.rows; ++i) {
        index_t const top = i * s.tile.rows;
        matrix const rows = w.middleRows(top, std::min(s.tile.rows, 19 - top));
        auto const expected = slow_learner(rows, h.cast<double>(), s.tile.cols, p).run(how);
        for (index_t j = 0; j < s.scales.tiles.cols; ++j) {
            tile_scale const slow = expected[static_cast<std::size_t>(j)];
            EXPECT_NEAR(s.scales.at(i, j).scale, slow.scale, 1e-3F * slow.scale) << "tile " << i << ", " << j;
            EXPECT_EQ(s.scales.at(i, j).zero, slow.zero) << "tile " << i << ", " << j;
        }
    }
}

TEST(learn_clips, follows_the_slopes_of_a_frozen_layer) {
    expect_learned_like_slowly(problem_of{int_grid<2>{}, per_channel{}, minmax_range{}, float_format::f32});
    expect_learned_like_slowly(problem_of{int_grid<3>{}, per_group<20>{}, minmax_range{}, float_format::f32});
    expect_learned_like_slowly(problem_of{e2m1{}, per_channel{}, absmax_range{}, float_format::f32});
    expect_learned_like_slowly(problem_of{nf4{}, per_group<16>{}, absmax_range{}, float_format::f32});
    expect_learned_like_slowly(problem_of{int_grid<2>{}, per_block<4, 16>{}, minmax_range{}, float_format::f32});
    expect_learned_like_slowly(
        problem_of{int_grid<2, zero::none>{}, per_tile{7, 0}, absmax_range{}, float_format::f32});
}

/// d H d^T of all rows, rounded to nearest.
double loss(matrix const& w, matrix const& h, problem const& p, solution const& s) {
    matrix q(w.rows(), w.cols());
    std::vector<code> codes(static_cast<std::size_t>(w.cols()));
    float_vector scales(w.cols());
    float_vector zeros(w.cols());
    for (index_t row = 0; row < w.rows(); ++row) {
        s.scales_of_row(row, scales.data(), zeros.data());
        p.round(w.cols(), w.row(row).data(), scales.data(), zeros.data(), codes.data(), &q(row, 0));
    }
    return (q - w).cast<double>().cwiseProduct((q - w).cast<double>() * h.cast<double>()).sum();
}

TEST(learn_clips, more_steps_lose_less_and_none_lose_no_more_than_the_whole_range) {
    matrix const w = random_matrix(40, 48, 1);
    matrix const h = symmetric_floats(hessian::of(correlated_inputs(200, 48, 1)).sum());
    for (index_t const width : {0, 16}) {
        problem_of const p{int_grid<2>{}, per_tile{1, width}, minmax_range{}};
        solution whole = p.begin(w);
        p.fit_all(w, whole, {});
        double const guessed = loss(w, h, p, learn_clips(w, h, p, {.steps = 0}));
        double const learned = loss(w, h, p, learn_clips(w, h, p, {}));
        EXPECT_LT(guessed, 0.95 * loss(w, h, p, whole));
        EXPECT_LT(learned, 0.97 * guessed);
    }
}

TEST(learn_clips, gives_the_same_bits_for_any_executor) {
    matrix const w = random_matrix(100, 48, 1);
    matrix const h = symmetric_floats(hessian::of(correlated_inputs(200, 48, 1)).sum());
    problem_of const p{int_grid<3>{}, per_block<8, 16>{}, minmax_range{}};
    thread_team three(3);
    EXPECT_EQ(learn_clips(w, h, p, {}, three).scales, learn_clips(w, h, p, {}).scales);
}

TEST(learn_clips, has_answers_for_tiles_of_zeros) {
    matrix w = random_matrix(8, 48, 1);
    w.row(3).setZero();
    w.block(5, 16, 1, 16).setZero();
    matrix const h = symmetric_floats(hessian::of(correlated_inputs(200, 48, 1)).sum());
    problem_of const p{int_grid<3>{}, per_group<16>{}, minmax_range{}};
    solution const s = learn_clips(w, h, p, {});
    for (float const scale : s.scales.scales) {
        EXPECT_TRUE(std::isfinite(scale) && scale > 0);
    }
    // Inputs that were never seen leave nothing to learn.
    solution const blind = learn_clips(w, matrix::Zero(48, 48), p, {});
    solution whole = p.begin(w);
    p.fit_all(w, whole, {});
    EXPECT_EQ(blind.scales, whole.scales);
}

TEST(learn_clips, complains_of_weights_that_are_not_finite) {
    matrix w = random_matrix(8, 48, 1);
    w(2, 3) = std::numeric_limits<float>::infinity();
    problem_of const p{int_grid<3>{}, per_channel{}, minmax_range{}};
    EXPECT_EQ(failure_message([&] { learn_clips(w, matrix::Zero(48, 48), p, {}); }),
              "weights: the weight at row 2, column 3 is not finite");
}

TEST(learn_clips, complains_where_no_error_is_finite) {
    matrix const w = 1e25F * random_matrix(8, 48, 1);
    problem_of const p{int_grid<3>{}, per_channel{}, minmax_range{}, float_format::f32};
    EXPECT_EQ(failure_message([&] { learn_clips(w, matrix::Identity(48, 48), p, {}); }),
              "clipping: finds no clip whose error is finite; are weights or inputs too large?");
}

TEST(symmetric_floats, have_both_triangles_and_a_largest_diagonal_element_of_1) {
    hessian const h = hessian::of(1e15F * correlated_inputs(200, 48, 1));
    matrix const f = symmetric_floats(h.sum());
    EXPECT_EQ(f.diagonal().maxCoeff(), 1);
    EXPECT_EQ(f, f.transpose());
    EXPECT_NEAR(f(3, 17), h(3, 17) / h.diagonal().maxCoeff(), 1e-6);
    EXPECT_EQ(symmetric_floats(basic_matrix<double>::Zero(3, 3)), matrix::Zero(3, 3));
}

} // namespace

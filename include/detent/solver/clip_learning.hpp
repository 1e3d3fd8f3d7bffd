// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <span>
#include <vector>

#include "detent/core/eigen.hpp"
#include "detent/core/error.hpp"
#include "detent/core/executor.hpp"
#include "detent/core/finite.hpp"
#include "detent/nn/adamw.hpp"
#include "detent/nn/products.hpp"
#include "detent/scale/learned_clip.hpp"
#include "detent/solver/problem.hpp"

namespace detent::inline DETENT_ABI {

/// How clips of one matrix are learned.
struct clip_learning {
    index_t steps = 40; ///< of AdamW after the first guesses, each as long as a product of the weights and the Hessian
    double rate = 0.1;  ///< learning rate of the logits, which falls to 0 along a line

    friend constexpr bool operator==(clip_learning, clip_learning) = default;
};

/// Learns the clips of the rows [first, first + rows of `w`), whole tiles, and keeps the scales of the best step of
/// each row of tiles. Rounding counts as adding a constant (the straight-through estimator), so that the gradient of
/// tr(D H D^T) with respect to the rounded weights is 2 D H. `Scalar` is the type of weights, float; a parameter so
/// that only programs that learn clips spend time on compiling this.
template <class Scalar> class clip_learner {
public:
    /// `h` (in, in), both triangles; `s` gets the scales. All outlive the learner.
    clip_learner(basic_matrix_view<Scalar> w, index_t first, basic_matrix<Scalar> const& h, problem const& p,
                 solution& s)
        : w_(w), first_tile_(first / s.tile.rows), h_(h), p_(p), s_(s), reach_(reach_of(p.table())),
          tile_rows_(ceil_div(w.rows(), s.tile.rows)), clip_(learned_clip<Scalar>::of(tile_rows_, s.scales.tiles.cols)),
          best_(tile_rows_) {
        best_.setConstant(std::numeric_limits<double>::infinity());
        for (index_t i = 0; i < tile_rows_; ++i) {
            for (index_t j = 0; j < s.scales.tiles.cols; ++j) {
                basic_matrix_view<Scalar> const tile = this->tile(i, j);
                ends_.push_back({std::min(Scalar{0}, tile.minCoeff()), std::max(Scalar{0}, tile.maxCoeff())});
            }
        }
        codes_.resize(static_cast<std::size_t>(w.cols()));
    }

    void run(clip_learning how) {
        // Ranges that keep the same part everywhere: the whole, and where learning begins.
        constexpr std::array parts{1.0F, 0.9F, 0.8F, 0.7F, 0.6F, 0.5F};
        for (float const part : parts) {
            float const logit = part < 1 ? std::log(part / (1 - part)) : 40.0F;
            evaluate(learned_clip<Scalar>::of(tile_rows_, clip_.low.cols(), logit), [&](index_t i) {
                clip_.low.row(i).setConstant(std::min(logit, 4.0F)); // the slope at 40 is 0
                clip_.high.row(i) = clip_.low.row(i);
            });
        }
        unit_ = best_;
        auto const size = static_cast<std::size_t>(clip_.low.size());
        nn::adamw low(size);
        nn::adamw high(size);
        for (index_t step = 0; step < how.steps; ++step) {
            evaluate(clip_, [](index_t) {});
            auto const slopes = gradient();
            double const rate = how.rate * static_cast<double>(how.steps - step) / static_cast<double>(how.steps);
            low.step({clip_.low.data(), size}, {slopes.low.data(), size}, rate);
            high.step({clip_.high.data(), size}, {slopes.high.data(), size}, rate);
        }
        evaluate(clip_, [](index_t) {});
        for (index_t i = 0; i < tile_rows_; ++i) {
            if (!is_finite(best_(i))) { // no step gave it scales
                raise(error("clipping", "finds no clip whose error is finite; are weights or inputs too large?"));
            }
        }
    }

private:
    basic_matrix_view<Scalar> tile(index_t i, index_t j) const {
        index_t const row = i * s_.tile.rows;
        index_t const col = s_.first_of_tile(j);
        return w_.block(row, col, std::min(s_.tile.rows, w_.rows() - row), s_.first_of_tile(j + 1) - col);
    }

    interval ends(index_t i, index_t j) const { return ends_[static_cast<std::size_t>(i * s_.scales.tiles.cols + j)]; }

    /// Rounds with these clips; calls `improved(row of tiles)` where the loss is the least so far, and keeps the
    /// scales.
    template <class F> void evaluate(learned_clip<Scalar> const& clip, F const& improved) {
        auto const& all = scales_of(clip);
        errors_.resize(w_.rows(), w_.cols());
        basic_vector<Scalar> scales(w_.cols());
        basic_vector<Scalar> zeros(w_.cols());
        for (index_t row = 0; row < w_.rows(); ++row) {
            for (index_t j = 0; j < s_.scales.tiles.cols; ++j) {
                tile_scale const s = all[static_cast<std::size_t>(row / s_.tile.rows * s_.scales.tiles.cols + j)];
                index_t const col = s_.first_of_tile(j);
                scales.segment(col, s_.first_of_tile(j + 1) - col).setConstant(s.scale);
                zeros.segment(col, s_.first_of_tile(j + 1) - col).setConstant(s.zero);
            }
            p_.round(w_.cols(), w_.data() + row * w_.outerStride(), scales.data(), zeros.data(), codes_.data(),
                     &errors_(row, 0));
        }
        errors_ -= w_;
        product_.setZero(w_.rows(), w_.cols());
        nn::add_product(product_, errors_, h_);
        for (index_t i = 0; i < tile_rows_; ++i) {
            index_t const row = i * s_.tile.rows;
            index_t const count = std::min(s_.tile.rows, w_.rows() - row);
            double const loss = product_.middleRows(row, count)
                                    .cwiseProduct(errors_.middleRows(row, count))
                                    .template cast<double>()
                                    .sum();
            if (loss < best_(i)) {
                best_(i) = loss;
                for (index_t j = 0; j < s_.scales.tiles.cols; ++j) {
                    s_.scales.set(first_tile_ + i, j, all[static_cast<std::size_t>(i * s_.scales.tiles.cols + j)]);
                }
                improved(i);
            }
        }
    }

    auto const& scales_of(learned_clip<Scalar> const& clip) {
        scales_.clear();
        for (index_t i = 0; i < tile_rows_; ++i) {
            for (index_t j = 0; j < s_.scales.tiles.cols; ++j) {
                interval const whole = ends(i, j);
                bool const empty = whole.low == 0 && whole.high == 0;
                interval const kept =
                    empty ? interval::of(p_, tile(i, j))
                          : interval{whole.low * clip.kept_low(i, j), whole.high * clip.kept_high(i, j)};
                scales_.push_back(lay_over(p_.numbers(), p_.has_zero(), kept, p_.format()));
            }
        }
        return scales_;
    }

    /// Of the loss of each row of tiles, relative to what it was, after `evaluate` with `clip_`.
    learned_clip<Scalar> gradient() const {
        auto slopes = learned_clip<Scalar>::of(tile_rows_, clip_.low.cols(), 0);
        float const steps = p_.numbers().high - p_.numbers().low;
        for (index_t i = 0; i < tile_rows_; ++i) {
            for (index_t j = 0; j < clip_.low.cols(); ++j) {
                tile_scale const s = scales_[static_cast<std::size_t>(i * clip_.low.cols() + j)];
                float const from = s.scale * (reach_.low - s.zero);
                float const to = s.scale * (reach_.high - s.zero);
                basic_matrix_view<Scalar> const x = tile(i, j);
                auto const here = [&](basic_matrix<Scalar> const& m) {
                    return m.block(i * s_.tile.rows, s_.first_of_tile(j), x.rows(), x.cols());
                };
                auto const g = here(product_);
                auto const error = here(errors_);
                double by_scale = 0; // times the scale; q = x + error
                for (index_t row = 0; row < x.rows(); ++row) {
                    for (index_t col = 0; col < x.cols(); ++col) {
                        float const v = x(row, col);
                        bool const inside = v >= from && v <= to;
                        by_scale += static_cast<double>(g(row, col) * (inside ? 0 : v) + g(row, col) * error(row, col));
                    }
                }
                double const unit = std::max(unit_(i), 1e-300);
                auto const per_width = static_cast<float>(2 * by_scale / unit / static_cast<double>(s.scale * steps));
                auto const [low, high] = ends(i, j);
                auto const of_clip =
                    slopes_of_range(per_width, low, high, clip_.kept_low(i, j), clip_.kept_high(i, j), p_.has_zero());
                slopes.low(i, j) = of_clip.clip_low;
                slopes.high(i, j) = of_clip.clip_high;
            }
        }
        return slopes;
    }

    basic_matrix_view<Scalar> w_; // (rows, in)
    index_t first_tile_;
    basic_matrix<Scalar> const& h_;
    problem const& p_;
    solution& s_;
    interval reach_;
    index_t tile_rows_;
    learned_clip<Scalar> clip_;
    basic_vector<double> best_; // loss of each row of tiles
    basic_vector<double> unit_; // what losses are relative to
    dependent<std::vector<interval>, Scalar> ends_;
    dependent<std::vector<tile_scale>, Scalar> scales_;
    std::vector<code> codes_;
    basic_matrix<Scalar> errors_;  // (rows, in), Q - W
    basic_matrix<Scalar> product_; // (rows, in), errors times H
};

/// `h` (in, in), of which the upper triangle is there, as floats with both triangles and a largest diagonal element of
/// 1: neither clips nor a choice between solutions depend on its unit.
inline matrix symmetric_floats(basic_matrix<double> const& h) {
    double largest = 0;
    for (index_t j = 0; j < h.rows(); ++j) {
        largest = std::max(largest, h(j, j));
    }
    matrix symmetric = to_float(h, largest > 0 ? 1 / largest : 1);
    mirror_upper(symmetric);
    return symmetric;
}

/// Learns how far the range of each tile of `w` (out, in) is clipped so that rounding to nearest loses least at the
/// layer's output, tr(D H D^T) for D = Q - W (OmniQuant's LWC, section 3.2, on one matrix), given `h` (in, in) with
/// both triangles. The answer has the scales; its codes mean nothing. The same bits for any executor. @throws error
/// when scales are given, a weight is not finite, no error is, or an option is out of range.
template <class Scalar = float>
solution learn_clips(matrix_view w, matrix const& h, problem const& p, clip_learning how, executor_ref executor = {}) {
    expect_option(how.steps >= 0, "clipping", "number of steps", how.steps, "0 or more");
    expect_option(how.rate > 0 && is_finite(how.rate), "clipping", "learning rate", how.rate, "positive");
    expect_valid(h.rows() == w.cols() && h.cols() == w.cols(), "hessian",
                 "has another number of features than the weights");
    if (p.placed()) {
        raise(error("clipping", "has nothing to learn where scales are given"));
    }
    solution s = p.begin(w);
    index_t const piece = ceil_div(index_t{32}, s.tile.rows) * s.tile.rows;
    executor.for_pieces(w.rows(), piece, [&](index_t begin, index_t end) {
        clip_learner<Scalar>(middle_rows(w, begin, end - begin), begin, h, p, s).run(how);
    });
    return s;
}

#if defined(DETENT_COMPILED)
extern template solution learn_clips<float>(matrix_view, matrix const&, problem const&, clip_learning, executor_ref);
#endif

} // namespace detent::inline DETENT_ABI

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <numeric>
#include <optional>
#include <utility>
#include <vector>

#include "detent/core/eigen.hpp"
#include "detent/core/executor.hpp"
#include "detent/evidence/layer_inputs.hpp"
#include "detent/nn/products.hpp"
#include "detent/solver/problem.hpp"

namespace detent::inline DETENT_ABI {

/// Which ranges a search tries: multiples of the one it starts from, which is always tried first.
struct range_candidates {
    enum class spacing {
        ratio, ///< evenly spaced logarithms of the range, from `lowest` to `highest` times the first one
        bias   ///< LLM-FP4's: 0.01 to 1.2 times the exponent bias; needs a floating-point grid
    };

    spacing spaced = spacing::ratio;
    int steps = 100; ///< how many besides the first
    double lowest = 0.2;
    double highest = 1.25;

    /// The multiples to try, given the scale of the first range and the split of the grid. @throws error when there is
    /// nothing to try, or biases of a grid without exponents are asked for.
    std::vector<float> ratios(float scale, std::optional<float_split> split) const {
        if (steps < 1 || !(lowest > 0 && lowest <= highest)) {
            throw error("range search", "needs a step or more, and ranges above 0");
        }
        if (spaced == spacing::bias && !split) {
            throw error("range search", "over exponent biases needs a floating-point grid");
        }
        std::vector<float> all{1};
        for (int i = 0; i < steps; ++i) {
            double const part = static_cast<double>(i);
            if (spaced == spacing::ratio) {
                all.push_back(static_cast<float>(lowest * std::pow(highest / lowest, part / std::max(1, steps - 1))));
            } else { // B as LLM-FP4 counts it: the scale is 2^-B where the grid's own bias is 0
                double const own = std::ldexp(1.0, split->exponent_bits - 1) - 1;
                double const bias = own - std::log2(static_cast<double>(scale));
                double const gamma = 0.01 + part * (1.2 - 0.01) / steps;
                all.push_back(static_cast<float>(std::exp2(bias * (1 - gamma))));
            }
        }
        return all;
    }

    friend constexpr bool operator==(range_candidates, range_candidates) = default;
};

/// The function d G d^T + 2 l d^T of rows d, for a symmetric positive semidefinite G: what an error d of weights costs
/// at a layer's output, and what an error of activations does.
class quadratic_form {
public:
    /// `g` (n, n); what is below its diagonal does not matter.
    explicit quadratic_form(matrix g) : upper_(std::move(g)) {
        index_t const n = upper_.rows();
        for (index_t i = 0; i < n; ++i) { // d G d^T = d U d^T for the upper triangle U with its other elements doubled
            upper_.row(i).head(i).setZero();
            upper_.row(i).tail(n - i - 1) *= 2;
        }
    }

    index_t size() const { return upper_.rows(); }

    /// d G d^T for each row of `d` (rows, n); `work_kind` is memory to be used again.
    void evaluate(matrix_view d, float_vector& values, matrix& work) const {
        constexpr index_t width = 256;
        work.setZero(d.rows(), size());
        for (index_t col = 0; col < size(); col += width) {
            index_t const last = std::min(col + width, size());
            nn::products<float>::add(d.rows(), last - col, last, 1, {d.data(), d.outerStride()},
                                     {&upper_(0, col), size()}, &work(0, col), size());
        }
        values = work.cwiseProduct(d).rowwise().sum();
    }

private:
    matrix upper_;
};

/// A quadratic form whose G is replaced by its largest eigenvectors and the diagonal of the rest. Errors of rounding
/// are almost independent of one another but for what they have in common, which those eigenvectors see; so it tells
/// ranges apart nearly as well, in many fewer steps.
class rough_form {
public:
    /// `g` (n, n) with both triangles; `rank` eigenvectors at most.
    explicit rough_form(matrix_view g, index_t rank = 32) {
        index_t const n = g.rows();
        rank = std::min(rank, n);
        // Subspace iteration; any vectors that are not orthogonal to all of them may begin.
        basic_matrix<double> basis(n, rank);
        for (index_t i = 0; i < n; ++i) {
            for (index_t k = 0; k < rank; ++k) {
                basis(i, k) = static_cast<double>((i * 7919 + k * 104729 + i * k) % 2017) / 1008.5 - 1;
            }
        }
        for (int step = 0; step < 4; ++step) {
            divide_by_root(basis, basis, 1e-12); // nearly orthonormal
            matrix const now = basis.cast<float>();
            matrix next = matrix::Zero(n, rank);
            nn::products<float>::add(n, rank, n, 1, {g.data(), g.outerStride()}, {now.data(), rank}, next.data(), rank);
            basic_matrix<double> const before = now.cast<double>();
            basis = next.cast<double>();
            if (step == 3) { // G ~ (G B) (B^T G B)^-1 (G B)^T for the basis B, as exact as floats are
                divide_by_root(basis, before, 1e-8);
            }
        }
        vectors_ = basis.cast<float>();
        rest_ = (g.diagonal() - vectors_.rowwise().squaredNorm()).cwiseMax(0.0F);
    }

    index_t size() const { return vectors_.rows(); }

    /// d G d^T for each row of `d` (rows, n), nearly; `work_kind` is memory to be used again.
    void evaluate(matrix_view d, float_vector& values, matrix& work) const {
        work.setZero(d.rows(), vectors_.cols());
        nn::products<float>::add(d.rows(), vectors_.cols(), size(), 1, {d.data(), d.outerStride()},
                                 {vectors_.data(), vectors_.cols()}, work.data(), work.cols());
        values = work.rowwise().squaredNorm() + d.cwiseAbs2() * rest_;
    }

private:
    /// Multiplies `y` by R^-1 for x^T y = R^T R (rank, rank), of whose trace at least such a part is added to its
    /// diagonal: columns of x or y may depend on one another.
    static void divide_by_root(basic_matrix<double>& y, basic_matrix<double> const& x, double least) {
        index_t const rank = y.cols();
        basic_matrix<double> gram = basic_matrix<double>::Zero(rank, rank);
        nn::products<double>::add(rank, rank, y.rows(), 1, simd::strided<double>{x.data(), rank}.transpose(),
                                  {y.data(), rank}, gram.data(), rank);
        for (;; least *= 10) { // until it outweighs what rounding to float has made negative
            basic_matrix<double> root = gram;
            root.diagonal().array() += least * gram.trace() + std::numeric_limits<double>::min();
            Eigen::LLT<Eigen::Ref<basic_matrix<double>>> const llt(root);
            if (llt.info() == Eigen::Success || !(least < 1)) {
                llt.matrixU().solveInPlace<Eigen::OnTheRight>(y);
                return;
            }
        }
    }

    matrix vectors_;    // (n, rank); their outer products add up to the form without the rest
    float_vector rest_; // what they leave of the diagonal
};

/// Rows d at which a form is evaluated many at a time.
template <class Form> class form_batch {
public:
    explicit form_batch(Form const& form) : form_(form), d_(capacity, form.size()) {}

    /// Where the next d (n) must be written before the next call; its value d G d^T + 2 l d^T is added to `sum` by then
    /// or by `finish`. `l` (n) is read by then.
    float* next(float const* l, double& sum) {
        if (std::ssize(sums_) == capacity) {
            finish();
        }
        linear_.push_back(l);
        sums_.push_back(&sum);
        return d_.row(std::ssize(sums_) - 1).data();
    }

    void finish() {
        if (sums_.empty()) {
            return;
        }
        form_.evaluate(d_.topRows(std::ssize(sums_)), values_, work_);
        for (index_t i = 0; i < std::ssize(sums_); ++i) {
            auto const k = static_cast<std::size_t>(i);
            Eigen::Map<float_vector const> const l(linear_[k], form_.size());
            *sums_[k] += static_cast<double>(values_(i)) + 2 * static_cast<double>(d_.row(i).dot(l));
        }
        linear_.clear();
        sums_.clear();
    }

private:
    static constexpr index_t capacity = 384;

    Form const& form_;
    matrix d_; // (capacity, n)
    matrix work_;
    float_vector values_;
    std::vector<float const*> linear_;
    std::vector<double*> sums_;
};

/// What errors of a layer's weights cost at its output: |W x~ - Q x|^2 for inputs x that are quantized, where they come
/// with float ones x~, is a quadratic function of each row of Q, however many inputs there were.
class output_error {
public:
    /// For weights with the tiles of `s`.
    output_error(layer_inputs const& known, solution const& s)
        : h((known.hessian().scale() * known.hessian().sum()).cast<float>()) {
        h.triangularView<Eigen::StrictlyLower>() = h.transpose();
        if (known.has_difference()) {
            c = known.difference().cast<float>();
        }
        for (index_t tile = 0; tile < s.scales.tiles.cols; ++tile) {
            index_t const col = s.first_of_tile(tile);
            index_t const n = s.first_of_tile(tile + 1) - col;
            exact.emplace_back(h.block(col, col, n, n));
            rough.emplace_back(h.block(col, col, n, n));
        }
    }

    /// Half the gradient of the error at Q = W, where the error is d H d^T + 2 l d^T for d = Q - W, (rows, in).
    matrix gradient(matrix_view w) const {
        matrix l = matrix::Zero(w.rows(), w.cols());
        if (c.size() > 0) {
            nn::products<float>::add(w.rows(), w.cols(), w.cols(), -1, nn::strided(w), {c.data(), w.cols()}, l.data(),
                                     w.cols());
        }
        return l;
    }

    matrix h;                          ///< H (in, in), both triangles
    matrix c;                          ///< C (in, in) of `layer_inputs`; empty where the inputs are as they were
    std::vector<quadratic_form> exact; ///< of each column of tiles
    std::vector<rough_form> rough;     ///< the same
};

/// Rounds to the nearest number and searches the range of each tile for the smallest error of the layer's output
/// (LLM-FP4, section 4.1), given what rounding does to the other tiles of its rows; tiles side by side are searched one
/// after the other.
struct output_search {
    using evidence = layer_inputs;

    range_candidates candidates = {};
    /// How many candidates of a tile are judged exactly: the best by a `rough_form`, which judges some of them and
    /// those near the best, and always the first. 0 judges all exactly.
    index_t finalists = 4;

    /// Codes and scales for `w` (out, in). The loss in the report is the error, its mean over the inputs. @throws error
    /// when a weight is not finite, or as `range_candidates`.
    solution solve(matrix_view w, layer_inputs const& known, problem const& p, executor_ref executor = {}) const {
        expect_features(known.features(), w);
        solution s = solve(w, output_error(known, p.begin(w)), p, executor);
        s.report.loss += known.has_difference() ? known.difference_error(w, executor) : 0;
        return s;
    }

    /// The same with what `output_error` made of the inputs, which formats with the same tiles can share. The loss
    /// lacks what does not depend on the weights that are chosen.
    solution solve(matrix_view w, output_error const& error, problem const& p, executor_ref executor = {}) const {
        return run(w, error, p, false, executor);
    }

    /// That loss, nearly and from some of the rows, at a fraction of the time.
    double estimate(matrix_view w, output_error const& error, problem const& p, executor_ref executor = {}) const {
        return run(w, error, p, true, executor).report.loss;
    }

    friend constexpr bool operator==(output_search const&, output_search const&) = default;

private:
    solution run(matrix_view w, output_error const& error, problem const& p, bool only_rough,
                 executor_ref executor) const {
        solution s = p.begin(w);
        DETENT_EXPECTS(s.scales.tiles.cols == std::ssize(error.exact) && w.cols() == error.h.cols());
        p.fit_all(w, s, executor);
        index_t const piece = ceil_div(index_t{32}, s.tile.rows) * s.tile.rows; // whole tiles
        index_t const pieces = ceil_div(w.rows(), piece);
        index_t const stride = only_rough ? std::max<index_t>(1, pieces / 16) : 1; // some rows tell enough
        basic_vector<double> losses = basic_vector<double>::Zero(ceil_div(pieces, stride));
        executor.for_each(losses.size(), [&](index_t i) {
            index_t const begin = i * stride * piece;
            matrix_view const rows = w.middleRows(begin, std::min(piece, w.rows() - begin));
            losses(i) = row_search{*this, rows, begin, error, s, p}.run(only_rough) *
                        static_cast<double>(only_rough ? w.rows() : rows.rows()) / static_cast<double>(rows.rows());
        });
        s.report.loss = 0.5 * (only_rough ? losses.mean() : losses.sum());
        return s;
    }

    /// The search in the rows from `first` on.
    class row_search {
    public:
        row_search(output_search const& options, matrix_view w, index_t first, output_error const& error, solution& s,
                   problem const& p)
            : options_(options), w_(w), first_(first), error_(error), s_(s), p_(p), gradient_(error.gradient(w)),
              errors_(w.rows(), w.cols()), scales_(w.cols()), zeros_(w.cols()), numbers_(w.cols()) {}

        /// Answers the sum of d H d^T + 2 l d^T.
        double run(bool only_rough) {
            index_t const columns = s_.scales.tiles.cols;
            if (columns > 1) {
                for (index_t row = 0; row < w_.rows(); ++row) {
                    for (index_t tile = 0; tile < columns; ++tile) {
                        index_t const col = s_.first_of_tile(tile);
                        round(row, col, s_.first_of_tile(tile + 1) - col, scale_of(row, tile),
                              errors_.row(row).data() + col);
                    }
                }
            }
            double sum = 0;
            for (index_t tile = 0; tile < columns; ++tile) {
                sum += run(tile, only_rough);
            }
            if (columns > 1) {             // each tile saw others that have changed since
                matrix at = 2 * gradient_; // plus H d
                nn::products<float>::add(w_.rows(), w_.cols(), w_.cols(), 1, {errors_.data(), w_.cols()},
                                         {error_.h.data(), w_.cols()}, at.data(), w_.cols());
                sum = at.cwiseProduct(errors_).cast<double>().sum();
            }
            return sum;
        }

    private:
        /// Scales of a tile in ascending order, with what they cost where that is known.
        struct trials {
            std::vector<tile_scale> scales;
            std::size_t first = 0; ///< of the range the search starts from
            std::vector<double> cost;

            std::vector<std::size_t> best(std::size_t count) const {
                std::vector<std::size_t> order(scales.size());
                std::iota(order.begin(), order.end(), 0);
                count = std::min(count, order.size());
                auto const cost_of = [&](std::size_t i) { return std::pair{cost[i], i != first}; };
                std::ranges::partial_sort(order, order.begin() + static_cast<index_t>(count), {}, cost_of);
                order.resize(count);
                return order;
            }
        };

        double run(index_t tile, bool only_rough) {
            index_t const col = s_.first_of_tile(tile);
            auto const& exact = error_.exact[static_cast<std::size_t>(tile)];
            auto const& rough = error_.rough[static_cast<std::size_t>(tile)];
            index_t const n = exact.size();
            matrix l = gradient_.middleCols(col, n); // half the gradient where this tile has no error
            if (s_.scales.tiles.cols > 1) {
                errors_.middleCols(col, n).setZero();
                nn::products<float>::add(w_.rows(), n, w_.cols(), 1, {errors_.data(), w_.cols()},
                                         {error_.h.data() + col, w_.cols()}, l.data(), n);
            }
            std::vector<trials> tiles; // one below the other
            for (index_t row = 0; row < w_.rows(); row += s_.tile.rows) {
                tiles.push_back(first_trials(scale_of(row, tile)));
            }
            if (options_.finalists == 0 && !only_rough) {
                judge(exact, col, l, tiles, [](trials const& t) { return t.best(t.scales.size()); });
            } else {
                constexpr std::size_t stride = 4;
                judge(rough, col, l, tiles, [](trials const& t) {
                    std::vector<std::size_t> some{t.first};
                    for (std::size_t i = 0; i < t.scales.size(); i += stride) {
                        some.push_back(i);
                    }
                    return some;
                });
                judge(rough, col, l, tiles, [](trials const& t) { return near(t, t.best(2), stride - 1); });
                if (!only_rough) {
                    auto const most = static_cast<std::size_t>(options_.finalists);
                    judge(exact, col, l, tiles, [&](trials const& t) {
                        auto chosen = t.best(most);
                        chosen.push_back(t.first);
                        return chosen;
                    });
                }
            }
            double sum = 0;
            for (std::size_t i = 0; i < tiles.size(); ++i) {
                auto const best = tiles[i].best(1).front();
                index_t const top = static_cast<index_t>(i) * s_.tile.rows;
                s_.scales.set((first_ + top) / s_.tile.rows, tile, tiles[i].scales[best]);
                sum += tiles[i].cost[best];
                for (index_t row = top; row < std::min(w_.rows(), top + s_.tile.rows); ++row) {
                    round(row, col, n, tiles[i].scales[best], errors_.row(row).data() + col);
                }
            }
            return sum;
        }

        tile_scale scale_of(index_t row, index_t tile) const {
            return s_.scales.at((first_ + row) / s_.tile.rows, tile);
        }

        /// The scales to try for a tile whose first is `initial`, each once.
        trials first_trials(tile_scale initial) const {
            trials t;
            for (float const ratio : options_.candidates.ratios(initial.scale, p_.split())) {
                t.scales.push_back(p_.widened(initial, ratio));
            }
            initial = t.scales.front();
            std::ranges::sort(t.scales, {}, &tile_scale::scale);
            t.scales.erase(std::unique(t.scales.begin(), t.scales.end()), t.scales.end());
            t.first = static_cast<std::size_t>(std::ranges::find(t.scales, initial) - t.scales.begin());
            t.cost.assign(t.scales.size(), std::numeric_limits<double>::infinity());
            return t;
        }

        /// Those of `centers` and up to `reach` beside them whose cost is not known.
        static std::vector<std::size_t> near(trials const& t, std::vector<std::size_t> const& centers,
                                             std::size_t reach) {
            std::vector<std::size_t> found;
            for (std::size_t const c : centers) {
                for (std::size_t i = c - std::min(c, reach); i < std::min(t.scales.size(), c + reach + 1); ++i) {
                    if (std::isinf(t.cost[i]) && std::ranges::find(found, i) == found.end()) {
                        found.push_back(i);
                    }
                }
            }
            return found;
        }

        /// Sets the costs of those trials of each tile that `choose` names by `form`. An exact form forgets the others.
        template <class Form, class Choose>
        void judge(Form const& form, index_t col, matrix const& l, std::vector<trials>& tiles, Choose const& choose) {
            form_batch<Form> batch(form);
            for (std::size_t i = 0; i < tiles.size(); ++i) {
                trials& t = tiles[i];
                auto chosen = choose(t);
                std::ranges::sort(chosen);
                chosen.erase(std::unique(chosen.begin(), chosen.end()), chosen.end());
                if (std::is_same_v<Form, quadratic_form>) {
                    std::ranges::fill(t.cost, std::numeric_limits<double>::infinity());
                }
                index_t const top = static_cast<index_t>(i) * s_.tile.rows;
                for (std::size_t const c : chosen) {
                    t.cost[c] = 0;
                    for (index_t row = top; row < std::min(w_.rows(), top + s_.tile.rows); ++row) {
                        round(row, col, form.size(), t.scales[c], batch.next(l.row(row).data(), t.cost[c]));
                    }
                }
            }
            batch.finish();
        }

        /// Writes the codes of `n` columns of a row, and what rounding does to them to `d`.
        void round(index_t row, index_t col, index_t n, tile_scale t, float* d) {
            scales_.head(n).setConstant(t.scale);
            zeros_.head(n).setConstant(t.zero);
            float const* const weights = w_.data() + row * w_.outerStride() + col;
            p_.round(n, weights, scales_.data(), zeros_.data(), s_.codes.data() + (first_ + row) * w_.cols() + col,
                     numbers_.data());
            Eigen::Map<float_vector>(d, n) = numbers_.head(n) - Eigen::Map<float_vector const>(weights, n);
        }

        output_search const& options_;
        matrix_view w_; // (rows, in)
        index_t first_; // of the rows
        output_error const& error_;
        solution& s_;
        problem const& p_;
        matrix gradient_; // (rows, in), half of it at Q = W
        matrix errors_;   // (rows, in), Q - W
        float_vector scales_;
        float_vector zeros_;
        float_vector numbers_;
    };
};

} // namespace detent::inline DETENT_ABI

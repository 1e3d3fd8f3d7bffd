// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <numeric>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "detent/core/eigen.hpp"
#include "detent/core/error.hpp"
#include "detent/core/executor.hpp"
#include "detent/core/finite.hpp"
#include "detent/evidence/layer_inputs.hpp"
#include "detent/nn/products.hpp"
#include "detent/simd/dot.hpp"
#include "detent/solver/output_cost.hpp"
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
        if (steps < 1 || !(lowest > 0 && lowest <= highest && is_finite(highest))) {
            raise(error("range search", "needs a step or more, and ranges above 0"));
        }
        if (spaced == spacing::bias && !split) {
            raise(error("range search", "over exponent biases needs a floating-point grid"));
        }
        std::vector<float> all(static_cast<std::size_t>(steps) + 1, 1.0F);
        for (int i = 0; i < steps; ++i) {
            double const part = static_cast<double>(i);
            float& ratio = all[static_cast<std::size_t>(i) + 1];
            if (spaced == spacing::ratio) {
                ratio = static_cast<float>(lowest * std::pow(highest / lowest, part / std::max(1, steps - 1)));
            } else { // B as LLM-FP4 counts it: the scale is 2^-B where the grid's own bias is 0
                double const own = std::ldexp(1.0, split->exponent_bits - 1) - 1;
                double const bias = own - std::log2(static_cast<double>(scale));
                double const gamma = 0.01 + part * (1.2 - 0.01) / steps;
                ratio = static_cast<float>(std::exp2(bias * (1 - gamma)));
            }
        }
        return all;
    }

    friend constexpr bool operator==(range_candidates, range_candidates) = default;
};

/// What a search throws where none of its `candidates` has an error that can be compared.
inline error no_finite_error(char const* search, char const* candidates) {
    return error(search,
                 "finds no " + std::string(candidates) + " whose error is finite; are weights or inputs too large?");
}

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
    /// when a weight is not finite, no error of a range is, or as `range_candidates`.
    template <class Scalar = float>
    solution solve(matrix_view w, layer_inputs const& known, problem const& p, executor_ref executor = {}) const;

    /// Codes and scales from what `output_cost` made of the inputs, which formats with the same tiles can share. The
    /// loss lacks what does not depend on the weights that are chosen. It is not finite where no error of a range is;
    /// the scales then mean nothing.
    template <class Scalar>
    solution solve(matrix_view w, basic_output_cost<Scalar> const& error, problem const& p,
                   executor_ref executor = {}) const;

    /// That loss, nearly and from some of the rows, at a fraction of the time; infinite where it is no finite number.
    template <class Scalar>
    double estimate(matrix_view w, basic_output_cost<Scalar> const& error, problem const& p,
                    executor_ref executor = {}) const;

    friend constexpr bool operator==(output_search const&, output_search const&) = default;

private:
    template <class Scalar> class row_search;

    template <class Scalar>
    solution run(matrix_view w, basic_output_cost<Scalar> const& error, problem const& p, bool only_rough,
                 executor_ref executor) const;
};

/// The search in the rows from `first` on.
template <class Scalar> class output_search::row_search {
public:
    row_search(output_search const& options, basic_matrix_view<Scalar> w, index_t first,
               basic_output_cost<Scalar> const& error, solution& s, problem const& p)
        : options_(options), w_(w), first_(first), error_(error), s_(s), p_(p), gradient_(error.gradient(w)),
          errors_(w.rows(), w.cols()), scales_(w.cols()), zeros_(w.cols()) {}

    /// Answers the sum of d H d^T + 2 l d^T.
    double run(bool only_rough) {
        index_t const columns = s_.scales.tiles.cols;
        if (columns > 1) {
            for (index_t row = 0; row < w_.rows(); ++row) {
                for (index_t tile = 0; tile < columns; ++tile) {
                    index_t const col = s_.first_of_tile(tile);
                    round(row, col, s_.first_of_tile(tile + 1) - col, scale_of(row, tile), &errors_(row, col));
                }
            }
        }
        double sum = 0;
        for (index_t tile = 0; tile < columns; ++tile) {
            sum += run(tile, only_rough);
        }
        if (columns > 1) {                           // each tile saw others that have changed since
            basic_matrix<Scalar> at = 2 * gradient_; // plus H d
            nn::products<Scalar>::add(w_.rows(), w_.cols(), w_.cols(), 1, {errors_.data(), w_.cols()},
                                      {error_.h.data(), w_.cols()}, at.data(), w_.cols());
            sum = at.cwiseProduct(errors_).template cast<double>().sum();
        }
        return sum;
    }

private:
    using positions = dependent<std::vector<std::size_t>, Scalar>;

    /// Scales of a tile in ascending order, with what they cost where that is known.
    struct trials {
        dependent<std::vector<tile_scale>, Scalar> scales;
        std::size_t first = 0; ///< of the range the search starts from
        dependent<std::vector<double>, Scalar> cost;

        positions best(std::size_t count) const {
            positions order(scales.size());
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
        basic_matrix<Scalar> l = gradient_.middleCols(col, n); // half the gradient where this tile has no error
        if (s_.scales.tiles.cols > 1) {
            errors_.middleCols(col, n).setZero();
            nn::products<Scalar>::add(w_.rows(), n, w_.cols(), 1, {errors_.data(), w_.cols()},
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
                positions some{t.first};
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
                round(row, col, n, tiles[i].scales[best], &errors_(row, col));
            }
        }
        return sum;
    }

    tile_scale scale_of(index_t row, index_t tile) const { return s_.scales.at((first_ + row) / s_.tile.rows, tile); }

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
    static positions near(trials const& t, positions const& centers, std::size_t reach) {
        positions found;
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
    void judge(Form const& form, index_t col, basic_matrix<Scalar> const& l, std::vector<trials>& tiles,
               Choose const& choose) {
        form_batch<Form> batch(form);
        for (std::size_t i = 0; i < tiles.size(); ++i) {
            trials& t = tiles[i];
            auto chosen = choose(t);
            std::ranges::sort(chosen);
            chosen.erase(std::unique(chosen.begin(), chosen.end()), chosen.end());
            if (std::is_same_v<Form, basic_quadratic_form<Scalar>>) {
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
        for (trials& t : tiles) {
            std::ranges::transform(t.cost, t.cost.begin(), comparable_cost);
        }
    }

    /// Writes the codes of `n` columns of a row, and what rounding does to them to `d`.
    void round(index_t row, index_t col, index_t n, tile_scale t, Scalar* d) {
        scales_.head(n).setConstant(t.scale);
        zeros_.head(n).setConstant(t.zero);
        Scalar const* const weights = w_.data() + row * w_.outerStride() + col;
        p_.round(n, weights, scales_.data(), zeros_.data(), &s_.code_at(first_ + row, col), d);
        simd::add_multiple(Scalar{-1}, weights, d, n);
    }

    output_search const& options_;
    basic_matrix_view<Scalar> w_; // (rows, in)
    index_t first_;               // of the rows
    basic_output_cost<Scalar> const& error_;
    solution& s_;
    problem const& p_;
    basic_matrix<Scalar> gradient_; // (rows, in), half of it at Q = W
    basic_matrix<Scalar> errors_;   // (rows, in), Q - W
    basic_vector<Scalar> scales_;
    basic_vector<Scalar> zeros_;
};

template <class Scalar>
solution output_search::run(matrix_view w, basic_output_cost<Scalar> const& error, problem const& p, bool only_rough,
                            executor_ref executor) const {
    solution s = p.begin(w);
    DETENT_EXPECTS(s.scales.tiles.cols == std::ssize(error.exact) && w.cols() == error.h.cols());
    p.fit_all(w, s, executor);
    index_t const piece = ceil_div(index_t{32}, s.tile.rows) * s.tile.rows; // whole tiles
    index_t const pieces = ceil_div(w.rows(), piece);
    index_t const stride = only_rough ? std::max<index_t>(1, pieces / 16) : 1; // some rows tell enough
    index_t const searched = ceil_div(pieces, stride);
    basic_vector<double> losses(searched);
    executor.for_each(searched, [&](index_t i) {
        index_t const begin = i * stride * piece;
        index_t const rows = std::min(piece, w.rows() - begin);
        row_search<Scalar> search(*this, middle_rows(w, begin, rows), begin, error, s, p);
        losses(i) =
            search.run(only_rough) * static_cast<double>(only_rough ? w.rows() : rows) / static_cast<double>(rows);
    });
    s.report.loss = 0.5 * (only_rough ? losses.mean() : losses.sum());
    return s;
}

template <class Scalar>
solution output_search::solve(matrix_view w, layer_inputs const& known, problem const& p, executor_ref executor) const {
    expect_features(known.features(), w);
    solution s = solve(w, basic_output_cost<Scalar>(known, p.begin(w)), p, executor);
    if (!is_finite(s.report.loss)) {
        raise(no_finite_error("range search", "range"));
    }
    s.report.loss += known.has_difference() ? known.difference_error(w, executor) : 0;
    return s;
}

template <class Scalar>
solution output_search::solve(matrix_view w, basic_output_cost<Scalar> const& error, problem const& p,
                              executor_ref executor) const {
    return run(w, error, p, false, executor);
}

template <class Scalar>
double output_search::estimate(matrix_view w, basic_output_cost<Scalar> const& error, problem const& p,
                               executor_ref executor) const {
    return comparable_cost(run(w, error, p, true, executor).report.loss);
}

#if defined(DETENT_COMPILED)
extern template solution output_search::solve<float>(matrix_view, layer_inputs const&, problem const&,
                                                     executor_ref) const;
extern template solution output_search::solve<float>(matrix_view, output_cost const&, problem const&,
                                                     executor_ref) const;
extern template double output_search::estimate<float>(matrix_view, output_cost const&, problem const&,
                                                      executor_ref) const;
#endif

} // namespace detent::inline DETENT_ABI

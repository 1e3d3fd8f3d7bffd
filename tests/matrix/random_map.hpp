// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <bit>
#include <cmath>
#include <cstddef>
#include <random>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "detent/matrix/input_map.hpp"
#include "matrix/random_solution.hpp"

namespace detent::test {

/// Factors of either sign from 1/4 to 4.
inline diagonal random_factors(index_t n, unsigned seed) {
    std::mt19937 random(seed);
    std::uniform_real_distribution<float> exponent(-2, 2);
    diagonal d;
    for (index_t k = 0; k < n; ++k) {
        float const sign = random() % 2 == 0 ? 1.0F : -1.0F;
        d.factors.push_back(sign * std::exp2(exponent(random)));
    }
    return d;
}

/// A map of `n` inputs with a step for each letter, the first is done first: p for a permutation, d for factors, h for
/// rotations of blocks of `width`.
inline input_map random_map(std::string const& steps, index_t n, index_t width, unsigned seed = 1) {
    input_map map;
    for (char const step : steps) {
        ++seed;
        if (step == 'p') {
            map.then(permutation{random_order(n, seed)}, n);
        } else if (step == 'd') {
            map.then(random_factors(n, seed), n);
        } else {
            map.then(block_hadamard{width}, n);
        }
    }
    return map;
}

/// The matrix of one step, from its definition.
inline Eigen::MatrixXd dense_of(input_map::step const& step, index_t n) {
    Eigen::MatrixXd m = Eigen::MatrixXd::Zero(n, n);
    for (index_t k = 0; k < n; ++k) {
        if (auto const* const p = std::get_if<permutation>(&step)) {
            m(k, p->order[static_cast<std::size_t>(k)]) = 1;
        } else if (auto const* const d = std::get_if<diagonal>(&step)) {
            m(k, k) = static_cast<double>(d->factors[static_cast<std::size_t>(k)]);
        } else {
            index_t const width = std::get<block_hadamard>(step).width;
            for (index_t j = k / width * width; j < (k / width + 1) * width; ++j) {
                auto const common = static_cast<unsigned>((k % width) & (j % width));
                m(k, j) = (std::popcount(common) % 2 == 0 ? 1 : -1) / std::sqrt(static_cast<double>(width));
            }
        }
    }
    return m;
}

/// M, the product of all steps.
inline Eigen::MatrixXd dense_of(input_map const& map, index_t n) {
    Eigen::MatrixXd m = Eigen::MatrixXd::Identity(n, n);
    for (auto const& step : map.steps()) {
        m = dense_of(step, n) * m;
    }
    return m;
}

/// Every kind of step, and some of their combinations.
inline constexpr char const* kinds_of_maps[] = {"", "p", "d", "h", "pd", "dp", "dh", "hp", "phd", "dhpdh"};

} // namespace detent::test

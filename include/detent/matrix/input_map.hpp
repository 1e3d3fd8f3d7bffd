// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "detent/core/eigen.hpp"
#include "detent/core/error.hpp"
#include "detent/core/executor.hpp"
#include "detent/core/finite.hpp"
#include "detent/simd/hadamard.hpp"

namespace detent::inline DETENT_ABI {

/// A step of an `input_map`: number k of what comes out is number `order[k]` of what goes in.
struct permutation {
    std::vector<std::int32_t> order;
    friend bool operator==(permutation const&, permutation const&) = default;
};

/// A step of an `input_map`: number k is multiplied by `factors[k]`.
struct diagonal {
    std::vector<float> factors;
    friend bool operator==(diagonal const&, diagonal const&) = default;
};

/// A step of an `input_map`: each `width` consecutive numbers are multiplied by the orthonormal Walsh-Hadamard matrix,
/// see `simd::hadamard`; `width` is a power of two that divides how many numbers there are.
struct block_hadamard {
    index_t width = 1;
    friend bool operator==(block_hadamard, block_hadamard) = default;
};

/// What happens to a layer's input before the packed product: x' = M x, where M is a product of permutations, diagonal
/// matrices and block rotations, the first step nearest to x. The packed weights are then those of W' = W M^-1, and
/// W x = W' x'. An empty map changes nothing. It is a value; const uses may happen at once in several threads.
class input_map {
public:
    using step = std::variant<permutation, diagonal, block_hadamard>;

    input_map() = default;
    /// Of one step for `features` inputs. @throws error as `then`.
    template <std::convertible_to<step> Step> input_map(Step first, index_t features) {
        then(std::move(first), features);
    }

    bool empty() const { return steps_.empty(); }
    /// The steps, the first is done first.
    std::vector<step> const& steps() const { return steps_; }

    /// Does one step more, for `features` inputs. @throws error when it is no permutation, a factor is not a number
    /// other than 0 whose inverse is finite, or blocks do not divide the inputs.
    template <std::convertible_to<step> Step> input_map& then(Step next, index_t features) {
        check(next, features);
        steps_.emplace_back(std::move(next)); // no variant between, which g++ 12 warns of
        return *this;
    }

    /// Does another map, of as many inputs, after this one.
    template <std::same_as<input_map> Map> input_map& then(Map next) {
        for (auto& s : next.steps_) {
            steps_.push_back(std::move(s));
        }
        return *this;
    }

    /// The permutation where the map is one and nothing else; null where it is not.
    std::vector<std::int32_t> const* order() const {
        auto const* const only = steps_.size() == 1 ? std::get_if<permutation>(&steps_.front()) : nullptr;
        return only ? &only->order : nullptr;
    }

    // What follows are templates so that only programs that map something compile it, and each of them once.

    /// M x for each row x of a matrix (rows, in): of inputs, or of the rows of a Hessian. @throws error, as all below,
    /// when there are not as many columns as the steps are for.
    template <class Scalar> basic_matrix<Scalar> apply(basic_matrix<Scalar> x, executor_ref executor = {}) const;
    template <class Scalar = float> basic_matrix<Scalar> apply(matrix_view x, executor_ref executor = {}) const {
        return apply<Scalar>(basic_matrix<Scalar>(x), executor);
    }

    /// M x for rows of `cols` numbers, one after the other, in their place; allocates nothing where `executor` has a
    /// workspace.
    template <class Scalar> void apply_in_place(Scalar* x, index_t rows, index_t cols, executor_ref executor) const {
        for_rows(x, rows, cols, executor, [&](Scalar* row, std::span<Scalar> copy) {
            for (step const& s : steps_) {
                std::visit([&](auto const& t) { forward(t, row, copy, [](Scalar v, float f) { return v * f; }); }, s);
            }
        });
    }

    /// W M^-1 for weights (out, in).
    template <class Scalar> basic_matrix<Scalar> of_weights(basic_matrix<Scalar> w, executor_ref executor = {}) const;
    template <class Scalar = float> basic_matrix<Scalar> of_weights(matrix_view w, executor_ref executor = {}) const {
        return of_weights<Scalar>(basic_matrix<Scalar>(w), executor);
    }

    /// G M for each row of a matrix (rows, in): what `of_weights` made becomes the weights again, and the gradient of
    /// x' becomes that of x.
    template <class Scalar> basic_matrix<Scalar> back(basic_matrix<Scalar> g, executor_ref executor = {}) const;
    template <class Scalar = float> basic_matrix<Scalar> back(matrix_view g, executor_ref executor = {}) const {
        return back<Scalar>(basic_matrix<Scalar>(g), executor);
    }

    /// M A M^T for a square matrix (in, in), such as a Hessian.
    template <class Scalar> basic_matrix<Scalar> both_sides(basic_matrix<Scalar> a, executor_ref executor = {}) const;

    friend bool operator==(input_map const&, input_map const&) = default;

private:
    template <class... Steps> static void check(std::variant<Steps...> const& any, index_t features) {
        std::visit([&](auto const& s) { check(s, features); }, any);
    }

    static void check(permutation const& p, index_t features) {
        expect_option(features >= 0, "input map", "number of inputs", features, "0 or more");
        std::vector<char> seen(static_cast<std::size_t>(features));
        for (auto const input : p.order) {
            if (input < 0 || input >= features || seen[static_cast<std::size_t>(input)] != 0) {
                raise(error("input map", "its order is no permutation of " + std::to_string(features) + " inputs"));
            }
            seen[static_cast<std::size_t>(input)] = 1;
        }
        if (std::ssize(p.order) != features) {
            raise(error("input map", "its order is no permutation of " + std::to_string(features) + " inputs"));
        }
    }

    static void check(diagonal const& d, index_t features) {
        if (std::ssize(d.factors) != features) {
            raise(error("input map", "has " + std::to_string(d.factors.size()) + " factors for " +
                                         std::to_string(features) + " inputs"));
        }
        for (index_t k = 0; k < features; ++k) {
            float const f = d.factors[static_cast<std::size_t>(k)];
            if (!is_finite(f) || !is_finite(1 / f)) {
                raise(error("input map", "the factor of input " + std::to_string(k) + " is " + std::to_string(f)));
            }
        }
    }

    static void check(block_hadamard h, index_t features) {
        if (!simd::is_power_of_two(h.width) || features % h.width != 0) {
            raise(error("input map", "blocks of " + std::to_string(h.width) + " do not divide " +
                                         std::to_string(features) + " inputs, or are no power of two"));
        }
    }

    /// @throws error when a step is not for so many inputs.
    static void expect_size(step const& s, index_t features) {
        bool fits = true;
        if (auto const* const p = std::get_if<permutation>(&s)) {
            fits = std::ssize(p->order) == features;
        } else if (auto const* const d = std::get_if<diagonal>(&s)) {
            fits = std::ssize(d->factors) == features;
        } else {
            fits = features % std::get<block_hadamard>(s).width == 0;
        }
        if (!fits) {
            raise(error("input map", "is not for " + std::to_string(features) + " inputs"));
        }
    }

    /// Calls `f(row, copy)` for every row; the copy has room for one.
    template <class Scalar, class F>
    void for_rows(Scalar* x, index_t rows, index_t cols, executor_ref executor, F const& f) const {
        if (empty() || rows == 0) {
            return;
        }
        for (step const& s : steps_) {
            expect_size(s, cols);
        }
        constexpr index_t grain = 16;
        scratch memory(executor);
        auto* const copies = memory.take<Scalar>(ceil_div(rows, grain) * cols); // one for each piece
        executor.for_pieces(rows, grain, [&](index_t begin, index_t end) {
            std::span const copy(copies + begin / grain * cols, static_cast<std::size_t>(cols));
            for (index_t row = begin; row < end; ++row) {
                f(x + row * cols, copy);
            }
        });
    }

    template <class Scalar, class Scale>
    static void forward(permutation const& p, Scalar* x, std::span<Scalar> copy, Scale const&) {
        std::copy_n(x, copy.size(), copy.begin());
        for (std::size_t k = 0; k < copy.size(); ++k) {
            x[k] = copy[static_cast<std::size_t>(p.order[k])];
        }
    }
    template <class Scalar, class Scale>
    static void forward(diagonal const& d, Scalar* x, std::span<Scalar> copy, Scale const& scale) {
        for (std::size_t k = 0; k < copy.size(); ++k) {
            x[k] = scale(x[k], d.factors[k]);
        }
    }
    template <class Scalar, class Scale>
    static void forward(block_hadamard h, Scalar* x, std::span<Scalar> copy, Scale const&) {
        simd::hadamard(x, std::ssize(copy), h.width);
    }

    template <class Scalar> static void backward(permutation const& p, Scalar* x, std::span<Scalar> copy) {
        std::copy_n(x, copy.size(), copy.begin());
        for (std::size_t k = 0; k < copy.size(); ++k) {
            x[p.order[k]] = copy[k];
        }
    }
    template <class Scalar> static void backward(diagonal const& d, Scalar* x, std::span<Scalar> copy) {
        forward(d, x, copy, [](Scalar v, float f) { return v * f; });
    }
    template <class Scalar> static void backward(block_hadamard h, Scalar* x, std::span<Scalar> copy) {
        simd::hadamard(x, std::ssize(copy), h.width);
    }

    std::vector<step> steps_;
};

template <class Scalar> basic_matrix<Scalar> input_map::apply(basic_matrix<Scalar> x, executor_ref executor) const {
    apply_in_place(x.data(), x.rows(), x.cols(), executor);
    return x;
}

template <class Scalar>
basic_matrix<Scalar> input_map::of_weights(basic_matrix<Scalar> w, executor_ref executor) const {
    for_rows(w.data(), w.rows(), w.cols(), executor, [&](Scalar* row, std::span<Scalar> copy) {
        for (step const& s : steps_) {
            std::visit([&](auto const& t) { forward(t, row, copy, [](Scalar v, float f) { return v / f; }); }, s);
        }
    });
    return w;
}

template <class Scalar> basic_matrix<Scalar> input_map::back(basic_matrix<Scalar> g, executor_ref executor) const {
    for_rows(g.data(), g.rows(), g.cols(), executor, [&](Scalar* row, std::span<Scalar> copy) {
        for (std::size_t i = steps_.size(); i-- > 0;) {
            std::visit([&](auto const& t) { backward(t, row, copy); }, steps_[i]);
        }
    });
    return g;
}

template <class Scalar>
basic_matrix<Scalar> input_map::both_sides(basic_matrix<Scalar> a, executor_ref executor) const {
    a = apply<Scalar>(std::move(a), executor);
    a.transposeInPlace();
    a = apply<Scalar>(std::move(a), executor);
    a.transposeInPlace();
    return a;
}

#if defined(DETENT_COMPILED)
extern template matrix input_map::apply<float>(matrix, executor_ref) const;
extern template basic_matrix<double> input_map::apply<double>(basic_matrix<double>, executor_ref) const;
extern template matrix input_map::of_weights<float>(matrix, executor_ref) const;
extern template basic_matrix<double> input_map::of_weights<double>(basic_matrix<double>, executor_ref) const;
extern template matrix input_map::back<float>(matrix, executor_ref) const;
extern template basic_matrix<double> input_map::back<double>(basic_matrix<double>, executor_ref) const;
extern template basic_matrix<double> input_map::both_sides<double>(basic_matrix<double>, executor_ref) const;
#endif

} // namespace detent::inline DETENT_ABI

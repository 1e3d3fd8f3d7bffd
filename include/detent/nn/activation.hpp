// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cmath>
#include <concepts>
#include <utility>

#include "detent/core/contract.hpp"
#include "detent/core/eigen.hpp"
#include "detent/core/executor.hpp"
#include "detent/nn/tokens.hpp"

namespace detent::inline DETENT_ABI::nn {

/// The nonlinearity between the two projections of a feed-forward network.
enum class activation {
    silu,         ///< x sigmoid(x)
    gelu,         ///< x Phi(x) with the normal distribution function Phi
    gelu_tanh,    ///< 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))
    quick_gelu,   ///< x sigmoid(1.702 x)
    relu,         ///< max(x, 0)
    relu_squared, ///< max(x, 0)^2
    tanh,         ///< tanh(x)
    mish,         ///< x tanh(log(1 + exp(x)))
    identity      ///< x
};

/// A name that configurations of Hugging Face transformers give to an activation.
struct activation_name {
    char const* name;
    activation kind;
};

/// The names of all activations; `gelu_10` and others that are not here are not known.
inline constexpr activation_name activation_names[] = {
    {"silu", activation::silu},
    {"swish", activation::silu},
    {"gelu", activation::gelu},
    {"gelu_python", activation::gelu},
    {"gelu_new", activation::gelu_tanh},
    {"gelu_fast", activation::gelu_tanh},
    {"gelu_pytorch_tanh", activation::gelu_tanh},
    {"gelu_python_tanh", activation::gelu_tanh},
    {"gelu_accurate", activation::gelu_tanh},
    {"quick_gelu", activation::quick_gelu},
    {"relu", activation::relu},
    {"relu2", activation::relu_squared},
    {"tanh", activation::tanh},
    {"mish", activation::mish},
    {"linear", activation::identity},
};

/// One token's features.
template <class Scalar> using basic_row = Eigen::Array<Scalar, 1, Eigen::Dynamic>;

/// The normal distribution function of each entry: in float with a relative error below 1e-5 for x > -8, in double to
/// rounding.
template <class Scalar> basic_row<Scalar> normal_distribution(Eigen::Ref<basic_row<Scalar> const> const& x) {
    if constexpr (std::same_as<Scalar, float>) {
        // Phi(-|x|) = erfc(|x| / sqrt(2)) / 2 by the Chebyshev fit of Press et al., Numerical Recipes, 6.2.2: its
        // relative error is 1.2e-7 everywhere, where 1 + erf(x / sqrt(2)) would cancel for negative x.
        basic_row<float> const z = x.abs() * 0.70710678F;
        basic_row<float> const t = (1.0F + 0.5F * z).inverse();
        basic_row<float> p = 0.17087277F * t - 0.82215223F;
        for (float const c : {1.48851587F, -1.13520398F, 0.27886807F, -0.18628806F, 0.09678418F, 0.37409196F,
                              1.00002368F, -1.26551223F}) {
            p = p * t + c;
        }
        p = 0.5F * t * (p - z.square()).exp();
        p = (x > 0.0F).select(1.0F - p, p);
        return p;
    } else {
        return x.unaryExpr([](Scalar v) { return Scalar(0.5) * std::erfc(-v * Scalar(0.70710678118654752)); });
    }
}

/// 2 sqrt(2 / pi); in float the neighbour of the nearest one.
template <class Scalar> inline constexpr Scalar gelu_tanh_slope = Scalar(1.5957691216057308);
template <> inline constexpr float gelu_tanh_slope<float> = 1.5957691F;

// Every activation is x w(x). Each class below has `weigh(x, y)`, which multiplies y by w(x), so that y = x gives the
// activation and any other y a gated product in the same pass; and `differentiate(x, value, slope)`, which fills in the
// activation and its derivative. All are rows of one token.

/// x w(x) with the sigmoid w(x) = 1 / (1 + exp(-u(x))), where `u` and x u'(x) are expressions of a row.
template <class U> struct sigmoid_weight {
    template <class X, class Y> static void weigh(X const& x, Y&& y) {
        using Scalar = scalar_of<X>;
        y /= Scalar(1) + (-U::of(x)).exp();
    }
    template <class X, class Row> static void differentiate(X const& x, Row& value, Row& slope) {
        using Scalar = scalar_of<X>;
        value = (Scalar(1) + (-U::of(x)).exp()).inverse();
        slope = value * (Scalar(1) + U::times_slope(x) * (Scalar(1) - value));
        value *= x;
    }
};

/// u(x) = x.
struct silu_exponent {
    template <class X> static auto of(X const& x) { return x; }
    template <class X> static auto times_slope(X const& x) { return x; }
};

/// u(x) = 1.702 x.
struct quick_gelu_exponent {
    template <class X> static auto of(X const& x) { return scalar_of<X>(1.702) * x; }
    template <class X> static auto times_slope(X const& x) { return scalar_of<X>(1.702) * x; }
};

/// u(x) = 2 sqrt(2 / pi) (x + 0.044715 x^3): (1 + tanh(u / 2)) / 2 is the sigmoid of u, which keeps its relative
/// precision for negative u.
struct gelu_tanh_exponent {
    template <class X> static auto of(X const& x) {
        using Scalar = scalar_of<X>;
        return (gelu_tanh_slope<Scalar> * x * (Scalar(1) + Scalar(0.044715) * x.square())).eval();
    }
    template <class X> static auto times_slope(X const& x) {
        using Scalar = scalar_of<X>;
        return (gelu_tanh_slope<Scalar> * x * (Scalar(1) + Scalar(3) * Scalar(0.044715) * x.square())).eval();
    }
};

struct gelu_weight {
    template <class X, class Y> static void weigh(X const& x, Y&& y) { y *= normal_distribution<scalar_of<X>>(x); }
    template <class X, class Row> static void differentiate(X const& x, Row& value, Row& slope) {
        using Scalar = scalar_of<X>;
        Scalar const peak = Scalar(0.39894228040143268); // 1 / sqrt(2 pi), the normal density at 0
        value = normal_distribution<Scalar>(x);
        slope = value + peak * x * (Scalar(-0.5) * x.square()).exp();
        value *= x;
    }
};

struct relu_weight {
    template <class X, class Y> static void weigh(X const& x, Y&& y) {
        using Scalar = scalar_of<X>;
        y = (x > Scalar(0)).select(y, Scalar(0));
    }
    template <class X, class Row> static void differentiate(X const& x, Row& value, Row& slope) {
        using Scalar = scalar_of<X>;
        value = x.max(Scalar(0));
        slope = (x > Scalar(0)).template cast<Scalar>();
    }
};

struct relu_squared_weight {
    template <class X, class Y> static void weigh(X const& x, Y&& y) { y *= x.max(scalar_of<X>(0)); }
    template <class X, class Row> static void differentiate(X const& x, Row& value, Row& slope) {
        using Scalar = scalar_of<X>;
        value = x.max(Scalar(0)).square();
        slope = Scalar(2) * x.max(Scalar(0));
    }
};

struct tanh_weight {
    template <class X, class Y> static void weigh(X const& x, Y&& y) {
        using Scalar = scalar_of<X>;
        y *= (x == Scalar(0)).select(Scalar(1), x.tanh() / x);
    }
    template <class X, class Row> static void differentiate(X const& x, Row& value, Row& slope) {
        value = x.tanh();
        slope = scalar_of<X>(1) - value.square();
    }
};

/// tanh(log(1 + e)) = n / (n + 2) with e = exp(x) and n = e (e + 2); it is 1 where e would overflow.
struct mish_weight {
    template <class X> static auto numerator(X const& x) {
        using Scalar = scalar_of<X>;
        basic_row<Scalar> const e = x.min(Scalar(20)).exp();
        return basic_row<Scalar>(e * (e + Scalar(2)));
    }
    template <class X, class Y> static void weigh(X const& x, Y&& y) {
        basic_row<scalar_of<X>> const n = numerator(x);
        y *= n / (n + scalar_of<X>(2));
    }
    template <class X, class Row> static void differentiate(X const& x, Row& value, Row& slope) {
        using Scalar = scalar_of<X>;
        basic_row<Scalar> const n = numerator(x);
        value = n / (n + Scalar(2));
        slope = value + x * (Scalar(1) - value.square()) * (Scalar(1) + (-x).exp()).inverse();
        value *= x;
    }
};

struct no_weight {
    template <class X, class Y> static void weigh(X const&, Y&&) {}
    template <class X, class Row> static void differentiate(X const& x, Row& value, Row& slope) {
        value = x;
        slope.setOnes();
    }
};

/// Calls `f` with the class, of those above, of the activation `kind`.
template <class F> void with_weight(activation kind, F const& f) {
    switch (kind) {
    case activation::silu:
        return f(sigmoid_weight<silu_exponent>{});
    case activation::gelu:
        return f(gelu_weight{});
    case activation::gelu_tanh:
        return f(sigmoid_weight<gelu_tanh_exponent>{});
    case activation::quick_gelu:
        return f(sigmoid_weight<quick_gelu_exponent>{});
    case activation::relu:
        return f(relu_weight{});
    case activation::relu_squared:
        return f(relu_squared_weight{});
    case activation::tanh:
        return f(tanh_weight{});
    case activation::mish:
        return f(mish_weight{});
    case activation::identity:
        return f(no_weight{});
    }
}

/// The nonlinearity that `kind` names, elementwise. Takes `x`, (token, feature), by value so that a caller who is done
/// with it can move it in.
template <class Scalar>
basic_matrix<Scalar> activate(activation kind, basic_matrix<Scalar> x, executor_ref executor = {}) {
    with_weight(kind, [&](auto weight) {
        executor.for_pieces(x.rows(), rows_per_piece, [&](index_t begin, index_t end) {
            for (index_t r = begin; r < end; ++r) {
                auto row = x.row(r).array();
                weight.weigh(row, row);
            }
        });
    });
    return x;
}

/// The gradient of `activate` with respect to its inputs x, given that with respect to its result, `g`; both are
/// (token, feature). Takes `g` by value so that the result can reuse it.
template <class X>
basic_matrix<scalar_of<X>> activate_backward(activation kind, Eigen::MatrixBase<X> const& inputs,
                                             basic_matrix<scalar_of<X>> g, executor_ref executor = {}) {
    using Scalar = scalar_of<X>;
    basic_matrix_view<Scalar> const x(inputs);
    DETENT_EXPECTS(shape_of(x) == shape_of(g));
    with_weight(kind, [&](auto weight) {
        executor.for_pieces(x.rows(), rows_per_piece, [&](index_t begin, index_t end) {
            basic_row<Scalar> value(x.cols()), slope(x.cols());
            for (index_t r = begin; r < end; ++r) {
                weight.differentiate(x.row(r).array(), value, slope);
                g.row(r).array() *= slope;
            }
        });
    });
    return g;
}

/// How a gate and what it lets through are multiplied: act(gate) * up, with act = silu SwiGLU, with act = gelu GeGLU.
/// gpt-oss has {quick_gelu, 7, 1}.
struct gate_form {
    activation kind = activation::silu;
    double limit = 0;     ///< first the gate becomes at most this, and up within +-this; 0 for no limit
    double up_offset = 0; ///< act(gate) * (up + up_offset)

    friend bool operator==(gate_form const&, gate_form const&) = default;
};

/// act(gate) * up, elementwise, or what `form` says; both are (token, feature), and `gate` comes by value so that the
/// result can reuse it.
template <class Up>
basic_matrix<scalar_of<Up>> gated(gate_form const& form, basic_matrix<scalar_of<Up>> gate,
                                  Eigen::MatrixBase<Up> const& ups, executor_ref executor = {}) {
    using Scalar = scalar_of<Up>;
    basic_matrix_view<Scalar> const up(ups);
    DETENT_EXPECTS(shape_of(gate) == shape_of(up));
    with_weight(form.kind, [&](auto weight) {
        executor.for_pieces(gate.rows(), rows_per_piece, [&](index_t begin, index_t end) {
            auto const limit = static_cast<Scalar>(form.limit);
            basic_row<Scalar> weighed(gate.cols());
            for (index_t r = begin; r < end; ++r) {
                auto row = gate.row(r).array();
                weighed = up.row(r).array();
                if (form.limit > 0) {
                    row = row.min(limit);
                    weighed = weighed.max(-limit).min(limit);
                }
                if (form.up_offset != 0) {
                    weighed += static_cast<Scalar>(form.up_offset);
                }
                weight.weigh(row, weighed);
                row *= weighed;
            }
        });
    });
    return gate;
}

/// Gradients with respect to both inputs of `gated`, (token, feature).
template <class Scalar> struct gated_gradients {
    basic_matrix<Scalar> gate;
    basic_matrix<Scalar> up;
};

/// The gradients of `gated`, given that with respect to its result, `gradients`; all are (token, feature). The inputs
/// come by value so that the results can reuse them. Entries beyond the limit have no gradient, those at it have.
template <class G>
gated_gradients<scalar_of<G>> gated_backward(gate_form const& form, basic_matrix<scalar_of<G>> gate,
                                             basic_matrix<scalar_of<G>> up, Eigen::MatrixBase<G> const& gradients,
                                             executor_ref executor = {}) {
    using Scalar = scalar_of<G>;
    basic_matrix_view<Scalar> const g(gradients);
    DETENT_EXPECTS(shape_of(gate) == shape_of(g) && shape_of(up) == shape_of(g));
    with_weight(form.kind, [&](auto weight) {
        executor.for_pieces(g.rows(), rows_per_piece, [&](index_t begin, index_t end) {
            bool const limited = form.limit > 0;
            auto const limit = static_cast<Scalar>(form.limit), offset = static_cast<Scalar>(form.up_offset);
            basic_row<Scalar> value(g.cols()), slope(g.cols()), factor(g.cols());
            for (index_t r = begin; r < end; ++r) {
                auto gate_row = gate.row(r).array();
                auto up_row = up.row(r).array();
                if (limited) {
                    factor = gate_row.min(limit);
                    weight.differentiate(factor, value, slope);
                    slope = (gate_row > limit).select(Scalar(0), slope);
                    value = (up_row.abs() > limit).select(Scalar(0), value);
                    factor = up_row.max(-limit).min(limit) + offset;
                } else {
                    weight.differentiate(gate_row, value, slope);
                    factor = up_row + offset;
                }
                gate_row = g.row(r).array() * factor * slope;
                up_row = g.row(r).array() * value;
            }
        });
    });
    return {std::move(gate), std::move(up)};
}

} // namespace detent::inline DETENT_ABI::nn

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "detent/core/eigen.hpp"
#include "detent/core/index.hpp"

namespace peers {

using detent::index_t;
using detent::matrix;

/// One way to store a matrix W (out, in), so often that no cache holds all of it, and to multiply by it: y = x W^T.
class contestant {
public:
    contestant() = default;
    contestant(contestant const&) = delete;
    contestant& operator=(contestant const&) = delete;
    virtual ~contestant() = default;

    /// Bytes of codes, scales and zero points in memory that one product reads.
    virtual double bytes() const = 0;
    /// The numbers (out, in) that it multiplies by.
    virtual matrix weights() const = 0;
    /// Gets ready to multiply `x` (token, in), which must live as long as it is multiplied.
    virtual void prepare(matrix const& x, int threads) = 0;
    /// Multiplies by the next copy, or by each of several.
    virtual void run() = 0;
    /// How many products a `run` is.
    virtual index_t products_of_a_run() const { return 1; }
    /// What the last product was (token, out).
    virtual matrix const& result() const = 0;
};

/// A contestant in a list.
struct entry {
    std::string name;
    /// Null where it has no way to store a matrix of this shape.
    std::function<std::unique_ptr<contestant>(matrix const& weights)> make;
    /// Seconds for which its threads may go on spinning after a product.
    double rest = 0.005;
};

/// What a library takes part with.
struct peer {
    std::string version;
    std::vector<entry> entries;
};

/// How many copies of a matrix of so many bytes no cache holds.
inline index_t copies_of(double bytes) { return static_cast<index_t>(128e6 / bytes) + 1; }

/// A contestant by four functions: `store(w)` makes a copy, `bytes(copy)` are those that a product reads,
/// `weights(copy)` the numbers it stands for, and `multiply(copy, x, y, threads)` is the product.
template <class Way> class stored_contestant final : public contestant {
public:
    stored_contestant(Way way, matrix const& w) : way_(std::move(way)), rows_(w.rows()), copies_(1, way_.store(w)) {
        copies_.resize(static_cast<std::size_t>(copies_of(bytes())), copies_.front());
    }

    double bytes() const override { return way_.bytes(copies_.front()); }
    matrix weights() const override { return way_.weights(copies_.front()); }
    void prepare(matrix const& x, int threads) override {
        x_ = &x;
        threads_ = threads;
        y_.resize(x.rows(), rows_);
    }
    void run() override { way_.multiply(copies_[turn_++ % copies_.size()], *x_, y_, threads_); }
    matrix const& result() const override { return y_; }

private:
    Way way_;
    index_t rows_;
    std::vector<decltype(std::declval<Way>().store(std::declval<matrix const&>()))> copies_;
    matrix const* x_ = nullptr;
    matrix y_; // (token, out)
    int threads_ = 1;
    std::size_t turn_ = 0;
};

/// The entry of a `stored_contestant`.
template <class Way> entry stored(std::string name, Way way, double rest = 0.005) {
    return {.name = std::move(name),
            .make = [way](matrix const& w) { return std::make_unique<stored_contestant<Way>>(way, w); },
            .rest = rest};
}

} // namespace peers

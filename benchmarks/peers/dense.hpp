// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <array>
#include <string>

#include "contestant.hpp"

#if defined(DETENT_PEERS_OPENBLAS)
#include <cblas.h>
#endif

namespace peers {

/// Weights as floats.
struct dense_way {
    static matrix store(matrix const& w) { return w; }
    static double bytes(matrix const& w) { return static_cast<double>(w.size()) * sizeof(float); }
    static matrix weights(matrix const& w) { return w; }
};

struct eigen_way : dense_way {
    static void multiply(matrix const& w, matrix const& x, matrix& y, int threads) {
        Eigen::setNbThreads(threads);
        if (x.rows() == 1) {
            y.row(0).transpose().noalias() = w * x.row(0).transpose();
        } else {
            y.noalias() = x * w.transpose();
        }
    }
};

inline peer eigen_peer() {
    std::string const version = std::to_string(EIGEN_WORLD_VERSION) + '.' + std::to_string(EIGEN_MAJOR_VERSION) + '.' +
                                std::to_string(EIGEN_MINOR_VERSION);
    return {.version = version, .entries = {stored("Eigen f32", eigen_way{})}};
}

#if defined(DETENT_PEERS_OPENBLAS)

struct openblas_way : dense_way {
    static void multiply(matrix const& w, matrix const& x, matrix& y, int threads) {
        openblas_set_num_threads(threads);
        auto const [rows, cols, tokens] =
            std::array{static_cast<int>(w.rows()), static_cast<int>(w.cols()), static_cast<int>(x.rows())};
        if (tokens == 1) {
            cblas_sgemv(CblasRowMajor, CblasNoTrans, rows, cols, 1, w.data(), cols, x.data(), 1, 0, y.data(), 1);
        } else {
            cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, tokens, rows, cols, 1, x.data(), cols, w.data(), cols,
                        0, y.data(), rows);
        }
    }
};

inline peer openblas_peer() {
    return {.version = openblas_get_config(), .entries = {stored("OpenBLAS f32", openblas_way{}, 0.03)}};
}

#endif

} // namespace peers

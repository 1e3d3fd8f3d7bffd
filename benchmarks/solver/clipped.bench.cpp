// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// What clips learned for each layer by itself do to the error of its output, for every linear layer of the models in
// examples/models: a table of the ratios of tr(D H D^T), D = W - Q, of clipped<Inner> to that of Inner, their geometric
// mean, and in how many layers the ratio is below 1. H is that of the inputs behind layers which GPTQ quantized to the
// same bits, for 32 windows of 256 bytes of the calibration text.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

#include "detent/calibrate/quantize_decoder.hpp"
#include "detent/detent.hpp"
#include "detent/io/tokens.hpp"
#include "detent/model/load.hpp"
#include "detent/solver/clipped.hpp"

namespace {

using namespace detent;

constexpr std::size_t settings = 4; // bits and granularity
constexpr std::size_t solvers = 2;

struct layer_ratios {
    std::string name;
    std::array<double, settings* solvers> ratios = {};
};

/// The error of the layer's output.
double error_of(quantization const& q, matrix const& w, layer_inputs const& known, executor_ref executor) {
    return known.hessian().quadratic(w - dequantize(q.weights), executor);
}

template <class G, class P, class Inner>
double ratio(matrix const& w, layer_inputs const& known, executor_ref executor) {
    auto const with = as_quantization(quantizer<G, P, clipped<Inner>>{}(w, known, executor));
    auto const without = as_quantization(quantizer<G, P, Inner>{}(w, known, executor));
    return error_of(with, w, known, executor) / error_of(without, w, known, executor);
}

/// Writes the ratios of a setting to its two columns of `table`, which has a line for each layer afterwards.
template <class G, class P>
void measure(decoder model, calibration const& text, std::size_t setting, std::vector<layer_ratios>& table,
             executor_ref executor) {
    std::size_t layer = 0;
    auto const quantize = [&](matrix const& w, layer_inputs const& known, linear_role) {
        table.resize(std::max(table.size(), layer + 1));
        auto& ratios = table[layer++].ratios;
        ratios[setting] = ratio<G, P, gptq<>>(w, known, executor);
        ratios[settings + setting] = ratio<G, P, rtn>(w, known, executor);
        return as_quantization(quantizer<G, P, gptq<>>{}(w, known, executor));
    };
    auto const reports = quantize_decoder(model, quantize, text, executor);
    for (std::size_t i = 0; i < reports.size(); ++i) {
        table[i].name = reports[i].name;
    }
}

void print(std::string const& model, std::vector<layer_ratios> const& table) {
    std::printf("\n%-42s %-40s%s\n%-42s", model.c_str(), "GPTQ", "rounding to nearest", "");
    for (std::size_t solver = 0; solver < solvers; ++solver) {
        std::printf("%10s%10s%10s%10s", "int2", "int3", "int2:g64", "int3:g64");
    }
    std::array<double, settings* solvers> logarithms = {};
    std::array<int, settings* solvers> lower = {};
    for (auto const& [name, ratios] : table) {
        std::printf("\n%-42s", name.c_str());
        for (std::size_t i = 0; i < ratios.size(); ++i) {
            std::printf("%10.3f", ratios[i]);
            logarithms[i] += std::log(ratios[i]);
            lower[i] += ratios[i] < 1 ? 1 : 0;
        }
    }
    std::printf("\n%-42s", "geometric mean");
    for (double const sum : logarithms) {
        std::printf("%10.3f", std::exp(sum / static_cast<double>(table.size())));
    }
    std::printf("\n%-42s", ("lower, of " + std::to_string(table.size())).c_str());
    for (int const layers : lower) {
        std::printf("%10d", layers);
    }
    std::printf("\n");
}

} // namespace

int main() {
    thread_team executor;
    std::filesystem::path const examples = DETENT_EXAMPLES_DIR;
    auto const tokens = io::read_tokens(examples / "text" / "novels_calibration.txt");
    calibration const text{.tokens = tokens, .window = 256, .windows = 32};
    for (std::string const name : {"tiny-llama", "tiny-opt"}) {
        decoder const model = load_decoder(examples / "models" / name);
        std::vector<layer_ratios> table;
        measure<int_grid<2>, per_channel>(model, text, 0, table, executor);
        measure<int_grid<3>, per_channel>(model, text, 1, table, executor);
        measure<int_grid<2>, per_group<64>>(model, text, 2, table, executor);
        measure<int_grid<3>, per_group<64>>(model, text, 3, table, executor);
        print(name, table);
    }
}

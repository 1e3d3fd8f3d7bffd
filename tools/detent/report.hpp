// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "detent/calibrate/quantize_decoder.hpp"
#include "detent/core/stopwatch.hpp"

/// What became of a model quantized by one specification.
struct model_report {
    std::string spec;
    std::optional<double> perplexity; ///< where there is a text to measure it on
    double bits_per_weight = 0;       ///< of the quantized layers, all that is stored
    double effective_bits = 0;        ///< of the same without scales and the codes in weak columns
    detent::index_t weak_columns = 0;
    double bytes = 0; ///< of codes, scales and zero points, and of all other tensors as they were
    double quantize_seconds = 0;
    double evaluate_seconds = 0;
    detent::work_times times; ///< what the time went to, from loading to the perplexity
    std::vector<detent::layer_report> layers;
};

/// The whole run.
struct run_report {
    std::string model;
    std::optional<double> float_perplexity;
    double float_bytes = 0; ///< of the checkpoint as it is stored
    double float_seconds = 0;
    detent::work_times float_times; ///< and those of reading the texts
    double peak_bytes = 0;          ///< the most memory the program had
    std::vector<model_report> results;

    /// What the time of the whole run went to.
    detent::work_times times() const;
};

/// The most memory this program has had so far, in bytes.
double peak_memory();

/// Prints one line for the float model and one for each result, what the solvers found worth a look, and what the time
/// went to.
void print(run_report const& report);

/// Writes the run to `report.json` and `layer_errors.svg` in a directory that exists.
void write_report(run_report const& report, std::filesystem::path const& directory);

/// The run as JSON.
std::string to_json(run_report const& report);

/// A bar chart of the relative output error of every layer, one bar for each result, as SVG.
std::string to_svg(run_report const& report);

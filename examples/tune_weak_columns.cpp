// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// Adapts a quantized model to a text it was not made for by training its weak columns only, and compares with training
// all weights of the same layers of the float model.

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <CLI/CLI.hpp>
#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include "detent/calibrate/perplexity.hpp"
#include "detent/calibrate/quantize_decoder.hpp"
#include "detent/calibrate/tune.hpp"
#include "detent/core/thread_team.hpp"
#include "detent/io/tokens.hpp"
#include "detent/model/load.hpp"
#include "detent/quantizer/quantizer.hpp"
#include "detent/scale/truncated.hpp"
#include "detent/solver/owq.hpp"

namespace {

using namespace detent;

struct options {
    std::filesystem::path model = DETENT_EXAMPLES_DIR "/models/tiny-llama";
    std::filesystem::path calibration = DETENT_EXAMPLES_DIR "/text/novels_calibration.txt";
    std::filesystem::path text = DETENT_EXAMPLES_DIR "/../include";
    index_t columns = 4;
    index_t windows = 300; // of the text
    index_t epochs = 2;
    double weak_rate = 1e-2;
    double full_rate = 1e-3;
    index_t threads = 0;
};

/// The bytes of a file, or of all files below a directory in the order of their names.
std::vector<nn::token_id> read_text(std::filesystem::path const& path) {
    if (!std::filesystem::is_directory(path)) {
        return io::read_tokens(path);
    }
    std::vector<std::filesystem::path> files;
    for (auto const& entry : std::filesystem::recursive_directory_iterator(path)) {
        if (entry.is_regular_file()) {
            files.push_back(entry.path());
        }
    }
    std::ranges::sort(files);
    std::vector<nn::token_id> all;
    for (auto const& file : files) {
        auto const tokens = io::read_tokens(file);
        all.insert(all.end(), tokens.begin(), tokens.end());
    }
    return all;
}

/// The first `windows` windows of a text: every tenth is for evaluation, the others are for tuning.
struct split_text {
    static constexpr index_t window = 512;
    std::vector<nn::token_id> tuning;
    std::vector<nn::token_id> evaluation;

    split_text(std::vector<nn::token_id> const& text, index_t windows) {
        for (index_t i = 0; i < std::ssize(text) / window && i < windows; ++i) {
            auto& part = i % 10 == 9 ? evaluation : tuning;
            part.insert(part.end(), text.begin() + i * window, text.begin() + (i + 1) * window);
        }
    }
};

/// A line of /proc/self/status in megabytes; 0 where there is none.
double megabytes(std::string const& name) {
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);) {
        if (line.starts_with(name + ":")) {
            return std::stod(line.substr(name.size() + 1)) * 1024 / 1e6;
        }
    }
    return 0;
}

/// The most memory that is taken from its construction on, on top of what there was.
class memory_meter {
public:
    memory_meter() {
#if defined(__GLIBC__)
        malloc_trim(0);
#endif
        std::ofstream("/proc/self/clear_refs") << 5; // forgets the maximum
        before_ = megabytes("VmRSS");
    }
    double peak() const { return megabytes("VmHWM") - before_; }

private:
    double before_;
};

struct outcome {
    double before = 0; // perplexity
    double after = 0;
    index_t parameters = 0;
    double peak = 0; // MB
    double seconds = 0;
};

outcome tune(decoder& model, split_text const& text, options const& o, double learning_rate, executor_ref executor) {
    outcome result;
    result.before = perplexity(model, text.evaluation, split_text::window, executor);
    memory_meter const memory;
    auto const start = std::chrono::steady_clock::now();
    {
        decoder_tuner tuner(model,
                            {.tokens = text.tuning,
                             .window = split_text::window,
                             .epochs = o.epochs,
                             .optimizer = {.learning_rate = learning_rate},
                             .largest_norm = 1},
                            executor);
        tuner.run([](std::string_view, double fraction) {
            std::fprintf(stderr, "\rtuning %3.0f %%%s", 100 * fraction, fraction < 1 ? "" : "\r             \r");
            return true;
        });
        tuner.finish();
        result.parameters = tuner.parameters();
        result.peak = memory.peak();
    }
    result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    result.after = perplexity(model, text.evaluation, split_text::window, executor);
    return result;
}

void run(options const& o, executor_ref executor) {
    split_text const text(read_text(o.text), o.windows);
    auto const calibration_text = io::read_tokens(o.calibration);
    std::cout << text.tuning.size() / split_text::window << " windows to tune on, "
              << text.evaluation.size() / split_text::window << " to evaluate\n";

    decoder quantized = load_decoder(o.model);
    quantizer<int_grid<3>, per_channel, owq<>, truncated_range> const q{.solver = {.columns = o.columns}};
    quantize_decoder(quantized, q, {.tokens = calibration_text, .windows = 64}, executor);
    outcome const weak = tune(quantized, text, o, o.weak_rate, executor);

    decoder model = load_decoder(o.model);
    outcome const full = tune(model, text, o, o.full_rate, executor);

    std::printf("%-24s %10s %10s %12s %10s %10s\n", "trained", "before", "after", "parameters", "peak MB", "seconds");
    auto const print = [](char const* what, outcome const& r) {
        std::printf("%-24s %10.4f %10.4f %12td %10.1f %10.1f\n", what, r.before, r.after, r.parameters, r.peak,
                    r.seconds);
    };
    print(("weak columns, int3:owq=" + std::to_string(o.columns)).c_str(), weak);
    print("all weights, float", full);
    std::printf("%.2f %% of the parameters recover %.0f %% of the perplexity\n",
                100.0 * static_cast<double>(weak.parameters) / static_cast<double>(full.parameters),
                100 * (weak.before - weak.after) / (weak.before - full.after));
}

} // namespace

int main(int argc, char** argv) {
    options o;
    CLI::App app{"Adapts a quantized language model to another text by training its weak columns."};
    app.add_option("model", o.model, "directory with config.json and safetensors")->check(CLI::ExistingDirectory);
    app.add_option("--calibration", o.calibration, "text the model was made for")->check(CLI::ExistingFile);
    app.add_option("--text", o.text, "file or directory; default: the headers of this library")
        ->check(CLI::ExistingPath);
    app.add_option("--columns", o.columns, "weak columns of a layer")
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
    app.add_option("--windows", o.windows, "windows of 512 tokens of the text to use at most")
        ->check(CLI::Range(10, 1000000))
        ->capture_default_str();
    app.add_option("--epochs", o.epochs)->check(CLI::PositiveNumber)->capture_default_str();
    app.add_option("--weak-rate", o.weak_rate, "learning rate of weak columns")
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
    app.add_option("--full-rate", o.full_rate, "learning rate of all weights")
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
    app.add_option("--threads", o.threads, "default: one for each processor")->check(CLI::PositiveNumber);
    CLI11_PARSE(app, argc, argv);
    try {
        thread_team executor(o.threads > 0 ? o.threads : thread_team::processors());
        run(o, executor);
    } catch (std::exception const& e) {
        std::cerr << "error: " << e.what() << '\n';
        return 1;
    }
    return 0;
}

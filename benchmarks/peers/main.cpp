// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// Products y = x W^T of this library and of others, in turns in one process, as a table. A round gives each contestant
// a turn: memory is read, then products are timed, each with another copy of the weights. All figures are medians over
// rounds. `share` is the rate at which the weights are read over that at which as many threads read memory just
// before; `error` is ||y - y64|| / ||y64||, where y64 is the product of the same inputs and the contestant's own
// weights in double.

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <iostream>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include <CLI/CLI.hpp>

#include "dense.hpp"
#include "detent/core/buffer.hpp"
#include "detent/core/error.hpp"
#include "detent/core/executor.hpp"
#include "detent/core/thread_team.hpp"
#include "interleaved.hpp"
#include "ours.hpp"
#include "peers.hpp"

namespace {

using namespace peers;
using detent::extents;
using matrix64 = detent::basic_matrix<double>;

struct options {
    std::vector<std::string> shapes = {"4096x4096"};
    std::vector<index_t> tokens = {1, 8, 128};
    std::vector<int> threads = {1};
    std::vector<std::string> only;
    double seconds = 3;
};

extents read_shape(std::string const& text) {
    long rows = 0;
    long cols = 0;
    int length = 0;
    if (std::sscanf(text.c_str(), "%ldx%ld%n", &rows, &cols, &length) != 2 || rows < 1 || cols < 1 ||
        text.substr(static_cast<std::size_t>(length)) != "") {
        throw detent::error(text, "no shape such as 4096x11008, outputs and inputs");
    }
    return {rows, cols};
}

matrix normal_numbers(index_t rows, index_t cols, float deviation) {
    std::mt19937 bits(static_cast<unsigned>(rows));
    std::normal_distribution<float> number(0, deviation);
    return matrix::NullaryExpr(rows, cols, [&] { return number(bits); });
}

/// x W^T in double.
matrix64 product64(matrix const& x, matrix const& w) {
    constexpr index_t rows = 512; // at a time
    matrix64 const x64 = x.cast<double>();
    matrix64 y(x.rows(), w.rows()); // (token, out)
    for (index_t row = 0; row < w.rows(); row += rows) {
        index_t const n = std::min(rows, w.rows() - row);
        matrix64 const part = w.middleRows(row, n).cast<double>();
        y.middleCols(row, n).noalias() = x64 * part.transpose();
    }
    return y;
}

/// Bytes per second at which so many threads read memory.
double reading_rate(int threads) {
    static detent::buffer const memory(index_t{1} << 27);
    auto const* const words = reinterpret_cast<std::uint64_t const*>(memory.data());
    index_t const count = memory.size() / index_t{sizeof(std::uint64_t)};
    class detent::thread_team several(threads);
    return static_cast<double>(memory.size()) / seconds([&] {
               detent::executor_ref(several).for_pieces(
                   count, 1 << 20, [&](index_t begin, index_t end) { read_memory(words + begin, end - begin); });
           });
}

/// An entry that takes part with a certain matrix.
struct player {
    entry what;
    std::unique_ptr<contestant> who;
    matrix64 expected; // (token, out) for the most tokens
    double error = 0;
    std::vector<double> times = {}; // of a product, in each round
    std::vector<double> shares = {};
};

std::vector<player> players_of(std::vector<entry> const& entries, matrix const& w, matrix const& x) {
    std::vector<player> players;
    Eigen::setNbThreads(0); // all
    for (auto const& e : entries) {
        if (auto who = e.make(w)) {
            auto expected = product64(x, who->weights());
            players.push_back({.what = e, .who = std::move(who), .expected = std::move(expected)});
        }
    }
    return players;
}

/// One turn of a player.
void take_turn(player& p, int threads) {
    constexpr double least = 0.004;
    auto const rest = [&](double seconds) {
        if (threads > 1) { // spinning threads would take the next one's processor
            std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
        }
    };
    double const rate = reading_rate(threads);
    rest(0.005);
    auto const products = static_cast<double>(p.who->products_of_a_run());
    if (products == 1) {
        p.who->run(); // wakes its threads
    }
    std::vector<double> times;
    double total = 0;
    while (total < least) {
        double const time = seconds([&] { p.who->run(); });
        times.push_back(time / products);
        total += time;
    }
    rest(p.what.rest);
    p.times.push_back(median(times));
    p.shares.push_back(p.who->bytes() / p.times.back() / rate);
}

void compete(std::vector<player>& players, matrix const& x, int threads, double least_seconds) {
    for (auto& p : players) {
        p.times.clear();
        p.shares.clear();
        p.who->prepare(x, threads);
        p.who->run();
        auto const expected = p.expected.topRows(x.rows());
        p.error = (p.who->result().cast<double>() - expected).norm() / expected.norm();
    }
    constexpr int least_rounds = 5;
    auto const start = std::chrono::steady_clock::now();
    auto const elapsed = [&] {
        return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    };
    for (int round = 0; round < least_rounds || elapsed() < least_seconds; ++round) {
        for (auto& p : players) {
            take_turn(p, threads);
        }
    }
}

void print_head() {
    std::printf("| %-11s | tokens | threads | %-30s | microseconds | GFLOP/s | GB/s  | share | error   |\n"
                "|---|---|---|---|---|---|---|---|---|\n",
                "shape", "contestant");
}

void print_row(player const& p, extents shape, index_t tokens, int threads) {
    double const time = median(p.times);
    double const flops = 2.0 * static_cast<double>(tokens * shape.size());
    auto const name = std::to_string(shape.rows) + 'x' + std::to_string(shape.cols);
    std::printf("| %-11s | %6ld | %7d | %-30s | %12.1f | %7.1f | %5.1f | %5.2f | %.1e |\n", name.c_str(),
                static_cast<long>(tokens), threads, p.what.name.c_str(), time * 1e6, flops / time / 1e9,
                p.who->bytes() / time / 1e9, median(p.shares), p.error);
    std::fflush(stdout);
}

/// The contestants of which a name has any part in `only`; prints where they come from.
std::vector<entry> all_entries(std::vector<std::string> const& only) {
    std::vector<entry> all = our_entries();
    auto const take = [&](char const* name, peer const& p) {
        std::printf("%s: %s\n", name, p.version.c_str());
        all.insert(all.end(), p.entries.begin(), p.entries.end());
    };
    [[maybe_unused]] auto const miss = [](char const* name) { std::printf("%s: not found\n", name); };
    take("Eigen", eigen_peer());
#if defined(DETENT_PEERS_OPENBLAS)
    take("OpenBLAS", openblas_peer());
#else
    miss("OpenBLAS");
#endif
#if defined(DETENT_PEERS_GGML)
    take("ggml", ggml_peer());
#else
    miss("ggml");
#endif
#if defined(DETENT_PEERS_ONNXRUNTIME)
    take("onnxruntime", onnxruntime_peer());
#else
    miss("onnxruntime");
#endif
    std::puts("");
    std::erase_if(all, [&](entry const& e) {
        return !only.empty() && std::ranges::none_of(only, [&](std::string const& part) {
            return e.name.find(part) != std::string::npos;
        });
    });
    return all;
}

void compare_all(options const& o) {
    auto const entries = all_entries(o.only);
    print_head();
    for (auto const& text : o.shapes) {
        extents const shape = read_shape(text);
        matrix const w = normal_numbers(shape.rows, shape.cols, 0.02F);             // (out, in)
        matrix const x = normal_numbers(std::ranges::max(o.tokens), shape.cols, 1); // (token, in)
        auto players = players_of(entries, w, x);
        for (index_t const tokens : o.tokens) {
            matrix const inputs = x.topRows(tokens);
            for (int const threads : o.threads) {
                compete(players, inputs, threads, o.seconds);
                for (auto const& p : players) {
                    print_row(p, shape, tokens, threads);
                }
            }
        }
    }
}

} // namespace

int main(int argc, char** argv) {
    options o;
    CLI::App app{"Compares products with quantized weights."};
    app.add_option("--shapes", o.shapes, "outputs x inputs")->delimiter(',')->capture_default_str();
    app.add_option("--tokens", o.tokens)->delimiter(',')->check(CLI::PositiveNumber)->capture_default_str();
    app.add_option("--threads", o.threads)->delimiter(',')->check(CLI::PositiveNumber)->capture_default_str();
    app.add_option("--only", o.only, "contestants with any of these in their name; default: all")->delimiter(',');
    app.add_option("--seconds", o.seconds, "for each shape, number of tokens and number of threads at least")
        ->check(CLI::NonNegativeNumber)
        ->capture_default_str();
    CLI11_PARSE(app, argc, argv);
    try {
        compare_all(o);
    } catch (std::exception const& e) {
        std::cerr << "error: " << e.what() << '\n';
        return 1;
    }
    return 0;
}

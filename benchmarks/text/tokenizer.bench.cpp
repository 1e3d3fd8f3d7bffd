// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <array>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <string>
#include <string_view>
#include <utility>

#include <benchmark/benchmark.h>

#include "detent/io/text_file.hpp"
#include "detent/text/load_tokenizer.hpp"
#include "detent/text/tokenizer.hpp"

// Bytes of text per second of one core that become ids and ids that become text, with the tokenizer and texts that the
// environment names: DETENT_TOKENIZER=<directory or file> DETENT_TEXT=<file>. `cold` makes a tokenizer's first call on
// the text, with all of its words new; `warm` has met the words before; `documents` gives the text line by line.

namespace {

std::string from_environment(char const* name) {
    char const* value = std::getenv(name);
    return value == nullptr ? "" : value;
}

std::string const& text() {
    static std::string const result = detent::io::read_text(from_environment("DETENT_TEXT"));
    return result;
}

void count_bytes(benchmark::State& state) {
    state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations()) * std::ssize(text()));
}

void cold(benchmark::State& state) {
    for (auto _ : state) {
        state.PauseTiming();
        auto const t = detent::text::load_tokenizer(from_environment("DETENT_TOKENIZER"));
        state.ResumeTiming();
        benchmark::DoNotOptimize(t.encode(text(), false));
    }
    count_bytes(state);
}

void warm(benchmark::State& state) {
    auto const t = detent::text::load_tokenizer(from_environment("DETENT_TOKENIZER"));
    t.encode(text(), false);
    for (auto _ : state) {
        benchmark::DoNotOptimize(t.encode(text(), false));
    }
    count_bytes(state);
}

void documents(benchmark::State& state) {
    auto const t = detent::text::load_tokenizer(from_environment("DETENT_TOKENIZER"));
    for (auto _ : state) {
        for (std::string_view rest = text(); !rest.empty();) {
            auto const end = rest.find('\n');
            benchmark::DoNotOptimize(t.encode(rest.substr(0, end), false));
            rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
        }
    }
    count_bytes(state);
}

void decode(benchmark::State& state) {
    auto const t = detent::text::load_tokenizer(from_environment("DETENT_TOKENIZER"));
    auto const ids = t.encode(text(), false);
    for (auto _ : state) {
        benchmark::DoNotOptimize(t.decode(ids));
    }
    count_bytes(state);
}

} // namespace

int main(int argc, char** argv) {
    if (from_environment("DETENT_TOKENIZER").empty() || from_environment("DETENT_TEXT").empty()) {
        std::cerr << "tokenizer: set DETENT_TOKENIZER to a tokenizer and DETENT_TEXT to a file of text\n";
        return 0;
    }
    using measurement = std::pair<char const*, void (*)(benchmark::State&)>;
    for (auto const& [name, run] :
         std::array<measurement, 4>{{{"cold", cold}, {"warm", warm}, {"documents", documents}, {"decode", decode}}}) {
        benchmark::RegisterBenchmark(name, run)->Unit(benchmark::kMillisecond);
    }
    benchmark::Initialize(&argc, argv);
    benchmark::RunSpecifiedBenchmarks();
}

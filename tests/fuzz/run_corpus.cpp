// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// Runs a target on the files of directories, without a fuzzer: run_corpus TARGET DIRECTORY... What was found once is
// tried by every test run.

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <vector>

#include <sys/resource.h>

#include "fuzz.hpp"

namespace {

long peak_megabytes() {
    rusage usage{};
    ::getrusage(RUSAGE_SELF, &usage);
    return usage.ru_maxrss / 1024;
}

} // namespace

int main(int argc, char** argv) {
    auto const& targets = detent::fuzz::targets();
    auto const target = argc > 1 ? targets.find(argv[1]) : targets.end();
    if (target == targets.end()) {
        std::fprintf(stderr, "there is no such target\n");
        return 2;
    }
    int count = 0;
    bool slow = false;
    for (int i = 2; i < argc; ++i) {
        std::vector<std::filesystem::path> files;
        for (auto const& entry : std::filesystem::directory_iterator(argv[i])) {
            files.push_back(entry.path());
        }
        std::ranges::sort(files);
        for (auto const& file : files) {
            std::ifstream in(file, std::ios::binary);
            std::vector<char> const bytes{std::istreambuf_iterator<char>(in), {}};
            std::fprintf(stderr, "%s\n", file.c_str()); // the last one is that of a crash
            auto const start = std::chrono::steady_clock::now();
            target->second(reinterpret_cast<std::uint8_t const*>(bytes.data()), bytes.size());
            std::chrono::duration<double> const seconds = std::chrono::steady_clock::now() - start;
            if (seconds.count() > 20) {
                std::fprintf(stderr, "took %.1f s\n", seconds.count());
                slow = true;
            }
            ++count;
        }
    }
    long const peak = peak_megabytes();
    std::printf("%d inputs, %ld MB\n", count, peak);
    return count == 0 || slow || peak > 1500 ? 1 : 0;
}

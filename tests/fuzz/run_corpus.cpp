// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// Runs a target on the files of directories, without a fuzzer: what was found once is tried by every test run.

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

// What a target sets up before its first input, where it does.
extern "C" [[gnu::weak]] int LLVMFuzzerInitialize(int*, char***) { return 0; }

int main(int argc, char** argv) {
    LLVMFuzzerInitialize(&argc, &argv);
    int count = 0;
    bool slow = false;
    for (int i = 1; i < argc; ++i) {
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
            LLVMFuzzerTestOneInput(reinterpret_cast<std::uint8_t const*>(bytes.data()), bytes.size());
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

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <string_view>
#include <system_error>

#include <unistd.h>

#include "detent/core/error.hpp"

// What the targets of fuzzing share. Each is a function of `data` and `size` behind `DETENT_FUZZ_TARGET(name)`; what it
// is given is a file, or several in one, which a reader may refuse with a `detent::error` and with nothing else.

#if defined(DETENT_FUZZ) // a program of libFuzzer for each
#define DETENT_FUZZ_TARGET(name) extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size)
#else // one program for all
#define DETENT_FUZZ_TARGET(name)                                                                                       \
    static int try_##name(std::uint8_t const* data, std::size_t size);                                                 \
    [[maybe_unused]] static bool const has_##name = detent::fuzz::targets().emplace(#name, try_##name).second;         \
    static int try_##name(std::uint8_t const* data, std::size_t size)
#endif

namespace detent::fuzz {

/// The targets of this program by name.
inline std::map<std::string, int (*)(std::uint8_t const*, std::size_t)>& targets() {
    static std::map<std::string, int (*)(std::uint8_t const*, std::size_t)> all;
    return all;
}

/// A directory of this process, in memory where the system has one for that; removed at the end.
inline std::filesystem::path const& room() {
    struct owned_directory {
        std::filesystem::path path;
        owned_directory() {
            std::filesystem::path const memory = "/dev/shm";
            std::error_code ignored;
            auto const base =
                std::filesystem::is_directory(memory, ignored) ? memory : std::filesystem::temp_directory_path();
            path = base / ("detent-fuzz-" + std::to_string(::getpid()));
            std::filesystem::create_directories(path);
        }
        ~owned_directory() {
            std::error_code ignored;
            std::filesystem::remove_all(path, ignored);
        }
    };
    static owned_directory const directory;
    return directory.path;
}

/// Replaces a file. A mapping of the old one stays what it was.
inline void put(std::filesystem::path const& path, std::string_view bytes) {
    std::error_code ignored;
    std::filesystem::remove(path, ignored);
    std::ofstream file(path, std::ios::binary);
    file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    if (!file.flush()) {
        std::perror(path.c_str());
        std::_Exit(3);
    }
}

/// A safetensors file of this header and these data.
inline std::string framed(std::string_view header, std::string_view data) {
    std::uint64_t length = header.size();
    std::string file;
    for (int i = 0; i < 8; ++i, length >>= 8) {
        file += static_cast<char>(length & 0xFFU);
    }
    return file.append(header).append(data);
}

/// The file that an input is: as it stands, or with `is_framed` a header up to 0xFF and the data after it.
inline std::string file_of(bool is_framed, std::string_view input) {
    if (!is_framed) {
        return std::string(input);
    }
    auto const end = input.find('\xff');
    return end == std::string_view::npos ? framed(input, {}) : framed(input.substr(0, end), input.substr(end + 1));
}

/// Takes the input up to `separator` off.
inline std::string_view take(std::string_view& input, char separator) {
    auto const end = input.find(separator);
    auto const part = input.substr(0, end);
    input = end == std::string_view::npos ? std::string_view() : input.substr(end + 1);
    return part;
}

/// Ends the program as a crash does, for the fuzzer to keep the input.
inline void expect(bool valid, char const* what) {
    if (!valid) {
        std::fprintf(stderr, "broken promise: %s\n", what);
        std::abort();
    }
}

/// Calls `f`, which may throw a `detent::error` with a message of some lines.
template <class F> void attempt(F const& f) {
    try {
        f();
    } catch (error const& e) {
        expect(std::string_view(e.what()).size() < 4000, "an error is short");
        if (std::getenv("DETENT_FUZZ_SHOW") != nullptr) { // what a first corpus is refused for
            std::fprintf(stderr, "    %s\n", e.what());
        }
    }
}

inline std::string_view text_of(std::uint8_t const* data, std::size_t size) {
    return {reinterpret_cast<char const*>(data), size};
}

} // namespace detent::fuzz

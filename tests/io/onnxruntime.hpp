// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "detent/io/text_file.hpp"
#include "io/onnx_reader.hpp"

/// What ONNX Runtime makes of `model.onnx` in `directory` when it is given `input`; nothing where it is not installed.
/// The environment's DETENT_CLIENT_PYTHON is the command that runs Python where it is, in the current directory.
template <class T>
std::optional<std::vector<float>> run_onnxruntime(std::filesystem::path const& directory, std::vector<T> const& input) {
    std::ofstream(directory / "input.bin", std::ios::binary)
        .write(reinterpret_cast<char const*>(input.data()), static_cast<std::streamsize>(input.size() * sizeof(T)));
    auto const script = std::filesystem::path(DETENT_EXAMPLES_DIR).parent_path() / "tests" / "clients" / "run_onnx.py";
    std::filesystem::copy_file(script, directory / "run_onnx.py", std::filesystem::copy_options::overwrite_existing);
    char const* const python = std::getenv("DETENT_CLIENT_PYTHON");
    std::string const command = std::string(python != nullptr ? python : "python3") + " run_onnx.py 2>errors.txt";
    int const status = std::system(("cd '" + directory.string() + "' && " + command).c_str());
    if (status == 77 << 8 || status == 127 << 8) {
        return std::nullopt;
    }
    EXPECT_EQ(status, 0) << detent::io::read_text(directory / "errors.txt");
    std::string const bytes = detent::io::read_text(directory / "output.bin");
    onnx_stored_tensor const output{.bytes = bytes};
    return output.numbers<float>();
}

/// In place of what needs ONNX Runtime where it is not installed.
#define DETENT_SKIP_WITHOUT_ONNXRUNTIME(made)                                                                          \
    if (!(made)) {                                                                                                     \
        GTEST_SKIP() << "NOT TESTED: there is no ONNX Runtime; DETENT_CLIENT_PYTHON may name a Python that has it";    \
    }

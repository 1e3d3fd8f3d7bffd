// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstddef>
#include <cstdint>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

namespace detent::test {

/// A row of 512 numbers as ggml stores it, and the numbers that ggml reads from it.
struct golden_row {
    std::uint32_t id = 0; ///< of the type in files
    std::vector<std::uint8_t> bytes;
    std::vector<float> numbers;
};

/// The rows of golden/gguf_blocks.txt by the name of their type.
inline std::map<std::string, golden_row> const& golden_rows() {
    static auto const rows = [] {
        std::map<std::string, golden_row> result;
        std::ifstream file(DETENT_EXAMPLES_DIR "/../tests/golden/gguf_blocks.txt");
        for (std::string line; std::getline(file, line);) {
            std::istringstream words(line);
            std::string name;
            std::string hex;
            std::size_t size = 0;
            golden_row row;
            words >> name >> row.id >> size >> hex;
            for (std::size_t i = 0; i < size; ++i) {
                row.bytes.push_back(static_cast<std::uint8_t>(std::stoi(hex.substr(2 * i, 2), nullptr, 16)));
            }
            for (float x = 0; words >> x;) {
                row.numbers.push_back(x);
            }
            result[name] = row;
        }
        return result;
    }();
    return rows;
}

} // namespace detent::test

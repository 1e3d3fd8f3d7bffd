// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <map>
#include <ostream>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "detent/core/eigen.hpp"
#include "detent/io/json.hpp"
#include "detent/io/mapped_file.hpp"
#include "detent/io/tokens.hpp"

namespace detent::test {

/// A small random checkpoint of a family, with what Hugging Face transformers computes of it; see
/// tests/families/README.md.
struct family_fixture {
    std::filesystem::path directory;

    std::string name() const { return directory.filename().string(); }
    nlohmann::json reference() const { return io::read_json(directory / "reference.json"); }

    /// The numbers of `file`, little-endian F32, as `rows` rows.
    matrix floats(std::string const& file, index_t rows) const {
        io::mapped_file const mapped(directory / file);
        matrix numbers(rows, std::ssize(mapped.bytes()) / (rows * static_cast<index_t>(sizeof(float))));
        std::memcpy(numbers.data(), mapped.bytes().data(), static_cast<std::size_t>(numbers.size()) * sizeof(float));
        return numbers;
    }

    friend std::ostream& operator<<(std::ostream& out, family_fixture const& f) { return out << f.name(); }
};

inline std::filesystem::path families_directory() {
    return std::filesystem::path(DETENT_EXAMPLES_DIR).parent_path() / "tests" / "families";
}

/// 4 windows of 64 tokens.
inline std::vector<std::int32_t> family_tokens() { return io::read_tokens(families_directory() / "tokens.u16"); }

/// The checkpoints with safetensors by the kind of their reference: those of this project and, where the shared
/// directory is there, those that it has more.
inline std::map<std::string, std::vector<family_fixture>> find_family_fixtures() {
    std::map<std::string, std::filesystem::path> found;
    for (auto const& families : {families_directory(), std::filesystem::path(DETENT_SHARED_DIR) / "families"}) {
        if (!std::filesystem::is_directory(families)) {
            continue;
        }
        for (auto const& entry : std::filesystem::directory_iterator(families)) {
            if (std::filesystem::exists(entry.path() / "model.safetensors") ||
                std::filesystem::exists(entry.path() / "model.safetensors.index.json")) {
                found.emplace(entry.path().filename().string(), entry.path());
            }
        }
    }
    std::map<std::string, std::vector<family_fixture>> all;
    for (auto const& [name, directory] : found) {
        family_fixture const fixture{directory};
        all[fixture.reference().at("kind")].push_back(fixture);
    }
    return all;
}

/// The checkpoints of a kind: decoder, text or image.
inline std::vector<family_fixture> const& family_fixtures(std::string const& kind) {
    static auto const all = find_family_fixtures();
    return all.at(kind);
}

/// The name of a test of a fixture.
inline std::string fixture_name(testing::TestParamInfo<family_fixture> const& test) {
    std::string name = test.param.name();
    std::ranges::replace(name, '-', '_');
    return name;
}

} // namespace detent::test

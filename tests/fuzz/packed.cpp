// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// A checkpoint of one packed layer, in any layout: a line of settings, a line with its shape, and a line for each
// tensor: name, type, extents, `=` and bytes in hexadecimal, which are repeated as often as the tensor needs. What is
// read is decoded, written in every layout that can hold it, and read again.

#include <charconv>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "detent/io/json.hpp"
#include "detent/io/packed_tensors.hpp"
#include "detent/matrix/dequantize.hpp"
#include "fuzz.hpp"

namespace {

using namespace detent;

constexpr index_t most_bytes = index_t{1} << 20;

std::optional<index_t> number(std::string_view text) {
    index_t value = 0;
    auto const [end, problem] = std::from_chars(text.data(), text.data() + text.size(), value);
    return problem == std::errc() && end == text.data() + text.size() ? std::optional(value) : std::nullopt;
}

std::vector<std::uint8_t> repeated(std::string_view digits, index_t count) {
    std::vector<std::uint8_t> pattern;
    for (std::size_t i = 0; i + 1 < digits.size(); i += 2) {
        unsigned value = 0;
        std::from_chars(digits.data() + i, digits.data() + i + 2, value, 16);
        pattern.push_back(static_cast<std::uint8_t>(value));
    }
    std::vector<std::uint8_t> bytes(static_cast<std::size_t>(count), std::uint8_t{1});
    for (std::size_t i = 0; !pattern.empty() && i < bytes.size(); ++i) {
        bytes[i] = pattern[i % pattern.size()];
    }
    return bytes;
}

/// Adds the tensor of a line; false where it is none, or too large to be worth the time.
bool add(io::safetensors_writer& file, std::string_view line) {
    std::string const name(fuzz::take(line, ' '));
    auto const type = io::parse_dtype(fuzz::take(line, ' '));
    std::vector<index_t> shape;
    while (!line.empty() && line.front() != '=') {
        auto const extent = number(fuzz::take(line, ' '));
        if (!extent || shape.size() > 4) {
            return false;
        }
        shape.push_back(*extent);
    }
    if (!type || line.empty()) {
        return false;
    }
    index_t const bytes = io::byte_size(*type, shape, name);
    if (bytes > most_bytes) {
        return false;
    }
    file.add(name, *type, shape, repeated(line.substr(1), bytes));
    return true;
}

void write_again(packed_matrix const& w, matrix const& numbers) {
    for (auto const* const layout : io::layouts()) {
        if (layout->add == nullptr || !layout->obstacle(w).empty()) {
            continue;
        }
        io::layer_to_save const layer{"layer", &w};
        auto const settings = layout->settings(std::span(&layer, 1));
        io::safetensors_writer file;
        layout->add(file, layer, settings);
        auto const path = fuzz::room() / "again.safetensors";
        file.save(path);
        io::checkpoint const again(path);
        io::packed_reader const reader(again, io::quantization_settings(settings, "again"));
        matrix const read = dequantize(reader.read("layer", w.shape()));
        fuzz::expect(read == numbers, "what was read can be written and read again");
    }
}

} // namespace

DETENT_FUZZ_TARGET(packed) {
    auto input = fuzz::text_of(data, size);
    fuzz::attempt([&] {
        auto const settings = io::parse_json(fuzz::take(input, '\n'), "settings");
        auto line = fuzz::take(input, '\n');
        auto const rows = number(fuzz::take(line, ' '));
        auto const cols = number(line);
        if (!rows || !cols || *rows < 1 || *cols < 1 || *rows > 4096 || *cols > 4096 || *rows * *cols > 1 << 18) {
            return;
        }
        io::safetensors_writer file;
        while (!input.empty()) {
            if (!add(file, fuzz::take(input, '\n'))) {
                return;
            }
        }
        auto const path = fuzz::room() / "packed.safetensors";
        file.save(path);
        io::checkpoint const checkpoint(path);
        io::packed_reader const reader(checkpoint, io::quantization_settings(settings, "config.json"));
        fuzz::attempt([&] { (void)reader.input("layer", *cols); });
        fuzz::attempt([&] {
            if (auto const expert = reader.read_expert("layer", 2, 1, {*rows, *cols})) {
                (void)dequantize(*expert);
            }
        });
        if (reader.contains("layer")) {
            packed_matrix const w = reader.read("layer", {*rows, *cols});
            matrix const numbers = dequantize(w);
            write_again(w, numbers);
        }
    });
    return 0;
}

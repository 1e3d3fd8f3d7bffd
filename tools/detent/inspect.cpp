// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <filesystem>
#include <iostream>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <type_traits>
#include <variant>
#include <vector>

#include <nlohmann/json.hpp>

#include "commands.hpp"
#include "detent/io/gguf_file.hpp"
#include "detent/io/json.hpp"
#include "detent/io/safetensors.hpp"
#include "model_size.hpp"
#include "terminal.hpp"

using namespace detent;

namespace {

/// What is said of a tensor of any kind of file.
struct tensor_line {
    std::string name;
    std::string type;
    std::vector<index_t> shape;
    double bytes = 0;
};

std::string to_text(std::vector<index_t> const& shape) {
    std::string text;
    for (index_t const extent : shape) {
        text += (text.empty() ? "" : " x ") + std::to_string(extent);
    }
    return text.empty() ? "one number" : text;
}

/// A name with `*` in place of each number between dots, as those of blocks and experts are.
std::string pattern_of(std::string const& name) {
    std::string pattern;
    for (std::size_t begin = 0; begin <= name.size();) {
        std::size_t const end = std::min(name.find('.', begin), name.size());
        auto const part = name.substr(begin, end - begin);
        bool const number = !part.empty() && part.find_first_not_of("0123456789") == std::string::npos;
        pattern += (begin > 0 ? "." : "") + (number ? "*" : part);
        begin = end + 1;
    }
    return pattern;
}

/// Prints tensors, those of all blocks that are alike on one line, and what each type holds.
void print(std::vector<tensor_line> const& tensors, bool all) {
    std::map<std::tuple<std::string, std::string, std::vector<index_t>>, std::pair<index_t, double>> alike;
    std::map<std::string, std::pair<index_t, double>> types;
    double bytes = 0;
    for (auto const& t : tensors) {
        for (auto* const sum : {&alike[{all ? t.name : pattern_of(t.name), t.type, t.shape}], &types[t.type]}) {
            sum->first += 1;
            sum->second += t.bytes;
        }
        bytes += t.bytes;
    }
    table lines({"tensor", "type", "shape", "number", "size"});
    for (auto const& [key, sum] : alike) {
        auto const& [name, type, shape] = key;
        lines.add({name, type, to_text(shape), std::to_string(sum.first), size_text(sum.second)});
    }
    lines.print();
    table sums({"type", "tensors", "size"});
    for (auto const& [type, sum] : types) {
        sums.add({type, std::to_string(sum.first), size_text(sum.second)});
    }
    sums.add({"all", std::to_string(tensors.size()), size_text(bytes)});
    std::cout << '\n';
    sums.print();
}

/// The fields of an object that are no objects or lists, in a line.
std::string plain_fields(nlohmann::json const& object) {
    std::string text;
    for (auto const& [field, value] : object.items()) {
        if (value.is_primitive() && !value.is_null()) {
            text += (text.empty() ? "" : ", ") + field + " " + io::printable(value.dump());
        }
    }
    return text;
}

void print_settings(std::filesystem::path const& directory) {
    for (auto const* name : {"config.json", "quantize_config.json"}) {
        if (!std::filesystem::exists(directory / name)) {
            continue;
        }
        auto const json = io::read_json(directory / name);
        if (json.is_object()) {
            std::cout << name << ": " << plain_fields(json) << '\n';
            if (auto const q = json.find("quantization_config"); q != json.end() && q->is_object()) {
                std::cout << "quantization_config: " << plain_fields(*q) << '\n';
            }
        }
    }
}

std::vector<tensor_line> lines_of(io::checkpoint const& file) {
    std::vector<tensor_line> lines;
    for (auto const& name : file.names()) {
        auto const& t = file.at(name);
        lines.push_back({name, std::string(io::name(t.type)), t.shape, static_cast<double>(t.bytes.size())});
    }
    return lines;
}

void inspect_gguf(std::filesystem::path const& path, bool all) {
    io::gguf_file const file(path);
    std::cout << "GGUF version " << file.version() << ", " << file.metadata().entries().size() << " keys, "
              << file.tensors().size() << " tensors\n";
    for (auto const& [key, value] : file.metadata().entries()) {
        std::visit(
            [&, &key = key]<class T>(T const& v) {
                if constexpr (requires { v.size(); } && !std::is_same_v<T, std::string>) {
                    std::cout << key << ": " << v.size() << " values\n";
                } else if constexpr (std::is_same_v<T, std::string>) {
                    std::cout << key << ": " << io::printable(v.substr(0, 100)) << (v.size() > 100 ? "..." : "")
                              << '\n';
                } else if constexpr (std::is_same_v<T, bool>) {
                    std::cout << key << ": " << (v ? "true" : "false") << '\n';
                } else {
                    std::cout << key << ": " << +v << '\n';
                }
            },
            value);
    }
    std::cout << '\n';
    std::vector<tensor_line> lines;
    double weights = 0, bytes = 0; // of matrices in blocks
    for (auto const& t : file.tensors()) {
        lines.push_back({t.name, std::string(t.type->name), t.shape, static_cast<double>(t.bytes.size())});
        if (t.name.starts_with("blk.") && t.shape.size() > 1) {
            weights += static_cast<double>(t.matrix_shape().size());
            bytes += lines.back().bytes;
        }
    }
    print(lines, all);
    if (weights > 0) {
        std::cout << fixed(8 * bytes / weights, 3) << " bits per weight of the matrices in blocks\n";
    }
}

void inspect(std::filesystem::path const& path, bool all) {
    if (path.extension() == ".gguf") {
        return inspect_gguf(path, all);
    }
    bool const directory = std::filesystem::is_directory(path);
    if (directory) {
        print_settings(path);
        for (auto const& entry : std::filesystem::directory_iterator(path)) {
            if (entry.path().extension() == ".gguf") {
                std::cout << '\n' << entry.path().filename().string() << '\n';
                inspect_gguf(entry.path(), all);
            }
        }
        if (!std::filesystem::exists(path / "model.safetensors") &&
            !std::filesystem::exists(path / "model.safetensors.index.json")) {
            return;
        }
        std::cout << '\n';
    }
    io::checkpoint const file(path);
    print(lines_of(file), all);
    if (auto const bits = stored_bits_per_weight(path, file)) {
        std::cout << fixed(*bits, 3) << " bits per weight of the layers in blocks, scales and zero points included\n";
    }
}

} // namespace

void add_inspect(CLI::App& program) {
    auto* const command = program.add_subcommand("inspect", "Show what is in a checkpoint: tensors, types, settings.");
    auto const path = std::make_shared<std::filesystem::path>();
    auto const all = std::make_shared<bool>(false);
    command->add_option("PATH", *path, "directory, or file *.safetensors or *.gguf")
        ->required()
        ->check(CLI::ExistingPath)
        ->type_name("");
    command->add_flag("--all", *all, "every tensor, not a line for those of all blocks");
    command->callback([path, all] { inspect(*path, *all); });
}

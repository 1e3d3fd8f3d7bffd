// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <algorithm>
#include <array>
#include <iostream>
#include <system_error>
#include <utility>

#include <stdlib.h>

#include "detent/io/packed_tensors.hpp"
#include "detent/model/gguf_checkpoint.hpp"
#include "detent/model/load.hpp"
#include "detent/model/load_gguf.hpp"
#include "detent/model/plan_gguf.hpp"
#include "detent/model/save.hpp"
#include "detent/model/save_gguf.hpp"
#include "detent/model/save_onnx.hpp"
#include "detent/model/write_gguf_tokenizer.hpp"
#include "layouts.hpp"

using namespace detent;
using io::client;

namespace {

using io::model_file;

constexpr char const* onnx_name = "model.onnx";

/// What is tried for a program, in this order, and a specification that it opens.
struct client_choice {
    std::string_view specification;
    std::array<std::string_view, 3> layouts;
};

/// In the order of `io::client`.
constexpr std::array<client_choice, io::client_names.size()> choices{{
    {"int4:g32:gptq", {"gguf"}},
    {"int4:g128:gptq", {"compressed-tensors", "awq", "gptq"}},
    {"int4:g128:gptq", {"gptq", "compressed-tensors", "awq"}},
    {"int4:g64:gptq", {"awq", "gptq", "compressed-tensors"}},
    {"int4:g128:gptq", {"onnx"}},
}};

/// What is tried where nobody asks for a layout.
constexpr std::array<std::string_view, 3> usual_layouts{"gptq", "compressed-tensors", "detent"};

layout find_layout(std::string_view name) {
    auto const all = layouts();
    auto const found = std::ranges::find(all, name, &layout::name);
    return found != all.end() ? *found : throw error("--layout", "there is none '" + std::string(name) + "'");
}

client client_named(std::string const& name) {
    auto const found = io::find_client(name);
    return found ? *found : throw error("--for", "there is no program '" + name + "'");
}

/// How a checkpoint of a layout has the packed layers of a model.
std::vector<io::stored_form> forms_of(io::checkpoint_layout const& of, decoder const& model) {
    auto const tensors = tensors_of(model);
    auto const inputs = inputs_to_store(tensors);
    std::vector<io::stored_form> forms;
    for (auto const& [name, packed] : packed_layers(tensors)) {
        auto const input = inputs.find(name);
        forms.push_back(io::form_of(of.id, *packed, input == inputs.end() ? nullptr : &input->second));
    }
    return forms;
}

} // namespace

std::string layout::name() const {
    return of != nullptr ? std::string(of->name) : file == model_file::gguf ? "gguf" : "onnx";
}

std::string layout::title() const {
    return of != nullptr ? std::string(of->title) + " layout" : std::string(io::name_of(file));
}

std::optional<error> layout::obstacle(decoder const& model, spec const* s, std::filesystem::path const& source) const {
    if (of == nullptr) {
        std::string why = file == model_file::onnx ? onnx_obstacle(model)
                          : s != nullptr           ? gguf_obstacle(model.configuration, *s)
                                                   : gguf_obstacle(model);
        if (why.empty() && file == model_file::gguf && !source.empty()) {
            why = gguf_tokenizer_obstacle(source, model.configuration);
        }
        return why.empty() ? std::nullopt : std::optional(error(title(), why));
    }
    auto const tensors = tensors_of(model);
    inputs_to_store(tensors); // whether they can be stored
    return layout_obstacle(tensors, of->id);
}

std::string layout::client_obstacle(client who, decoder const& model) const {
    if (of == nullptr) {
        return io::client_obstacle(who, file);
    }
    for (auto const& form : forms_of(*of, model)) {
        if (auto why = io::client_obstacle(who, form); !why.empty()) {
            return why;
        }
    }
    return {};
}

std::string layout::clients(decoder const& model) const {
    auto openers = of != nullptr ? io::clients_of(forms_of(*of, model)) : io::clients_of(file);
    std::string names;
    for (client const who : openers) {
        names += (names.empty() ? "" : ", ") + std::string(io::name_of(who));
    }
    return names.empty() ? "detent" : names;
}

bool layout::is_read() const { return of != nullptr || file == model_file::gguf; }

std::filesystem::path layout::path_in(std::filesystem::path const& directory) const {
    return of != nullptr ? directory : directory / (file == model_file::gguf ? gguf_name : onnx_name);
}

void layout::save(decoder const& model, std::filesystem::path const& source, std::filesystem::path const& directory,
                  std::string const& description, index_t shard_bytes) const {
    if (of != nullptr) {
        save_decoder(model, source, directory, description, of->id, shard_bytes);
        return;
    }
    std::filesystem::create_directories(directory);
    if (file == model_file::onnx) {
        save_onnx(model, path_in(directory), description);
        copy_sidecars(source, directory);
        return;
    }
    for (auto const& warning : save_gguf(model, source, path_in(directory), description)) {
        std::cerr << "note: " << warning << '\n';
    }
}

std::vector<layout> layouts() {
    std::vector<layout> all;
    for (auto const* of : io::layouts()) {
        if (of->add != nullptr) {
            all.push_back({.of = of});
        }
    }
    all.push_back({nullptr, model_file::gguf});
    all.push_back({nullptr, model_file::onnx});
    return all;
}

std::vector<std::string> layout_names() {
    std::vector<std::string> names;
    for (auto const& l : layouts()) {
        names.push_back(l.name());
    }
    return names;
}

std::vector<std::string> client_names() { return {io::client_names.begin(), io::client_names.end()}; }

std::string specification_for(std::string const& name) {
    return std::string(choices[static_cast<std::size_t>(client_named(name))].specification);
}

layout_choice choose_layout(decoder const& model, spec const* s, std::filesystem::path const& source,
                            std::string const& name, std::string const& for_client) {
    if (!name.empty()) {
        auto const wanted = find_layout(name);
        if (auto const obstacle = wanted.obstacle(model, s, source)) {
            throw *obstacle;
        }
        return {wanted, {}};
    }
    auto const who = for_client.empty() ? std::nullopt : std::optional(client_named(for_client));
    std::string why;
    for (auto const candidate : who ? choices[static_cast<std::size_t>(*who)].layouts : usual_layouts) {
        if (candidate.empty()) {
            continue;
        }
        auto const tried = find_layout(candidate);
        auto const obstacle = tried.obstacle(model, s, source);
        std::string const here = obstacle ? obstacle->what() : who ? tried.client_obstacle(*who, model) : "";
        if (here.empty()) {
            return {tried, why};
        }
        why += (why.empty() ? "" : "; ") + here;
    }
    throw error(who ? for_client : "model", "no layout for what is asked for: " + why);
}

void check_destination(std::filesystem::path const& source, std::filesystem::path const& output) {
    std::error_code ignored;
    if (std::filesystem::exists(output, ignored) && !std::filesystem::is_directory(output, ignored)) {
        throw error("--output", "'" + output.string() + "' is a file");
    }
    if (std::filesystem::equivalent(source, output, ignored)) {
        throw error("--output", "'" + output.string() + "' is where the model comes from; saving there would lose it");
    }
}

void say_saved(layout_choice const& chosen, std::filesystem::path const& directory, std::string const& programs) {
    std::cout << "saved " << chosen.of.path_in(directory).string() << " in " << chosen.of.title()
              << (chosen.why.empty() ? "" : " (" + chosen.why + ")") << "; opened by " << programs << '\n';
}

decoder save_and_reload(decoder model, std::filesystem::path const& source, std::filesystem::path const& directory,
                        std::string const& description, layout_choice const& chosen, index_t shard_bytes) {
    layout const& l = chosen.of;
    l.save(model, source, directory, description, shard_bytes);
    say_saved(chosen, directory, l.clients(model));
    return l.is_read() ? load_model(directory) : std::move(model);
}

std::filesystem::path files_of(std::filesystem::path const& path) {
    bool const alone = std::filesystem::exists(path / gguf_name) && !std::filesystem::exists(path / "config.json");
    return alone ? path / gguf_name : path;
}

bool is_gguf(std::filesystem::path const& path) { return files_of(path).extension() == ".gguf"; }

source_directory::source_directory(std::filesystem::path const& path, decoder const& model) : path_(path) {
    if (!is_gguf(path)) {
        return;
    }
    std::string pattern = (std::filesystem::temp_directory_path() / "detent-XXXXXX").string();
    if (::mkdtemp(pattern.data()) == nullptr) {
        throw error(pattern, "cannot be created");
    }
    temporary_ = pattern;
    path_ =
        temporary_ / (std::filesystem::is_directory(path) ? std::filesystem::canonical(path).filename() : path.stem());
    try {
        write_gguf_source(files_of(path), model, path_);
    } catch (...) { // there is no destructor yet
        std::error_code ignored;
        std::filesystem::remove_all(temporary_, ignored);
        throw;
    }
}

source_directory::~source_directory() {
    if (std::error_code ignored; !temporary_.empty()) {
        std::filesystem::remove_all(temporary_, ignored);
    }
}

decoder load_model(std::filesystem::path const& path) {
    return is_gguf(path) ? load_gguf(files_of(path)) : load_decoder(path);
}

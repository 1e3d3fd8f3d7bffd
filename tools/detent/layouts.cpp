// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <algorithm>
#include <array>
#include <iostream>
#include <system_error>

#include "detent/io/packed_tensors.hpp"
#include "detent/model/load.hpp"
#include "detent/model/load_gguf.hpp"
#include "detent/model/plan_gguf.hpp"
#include "detent/model/save.hpp"
#include "detent/model/save_gguf.hpp"
#include "layouts.hpp"

using namespace detent;
using io::client;

namespace {

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
    {"int4:g128:gptq", {"gptq", "compressed-tensors", "awq"}},
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

} // namespace

std::string layout::name() const { return of != nullptr ? std::string(of->name) : "gguf"; }
std::string layout::title() const { return of != nullptr ? std::string(of->title) + " layout" : "GGUF"; }

std::optional<error> layout::obstacle(decoder const& model, spec const* s) const {
    if (of == nullptr) {
        std::string const why = s != nullptr ? gguf_obstacle(model.configuration, *s) : gguf_obstacle(model);
        return why.empty() ? std::nullopt : std::optional(error("GGUF", why));
    }
    auto const tensors = tensors_of(model);
    inputs_to_store(tensors); // whether they can be stored
    return layout_obstacle(tensors, of->id);
}

std::string layout::client_obstacle(client who, decoder const& model) const {
    if (of == nullptr) {
        return who == client::llama_cpp
                   ? ""
                   : std::string(io::client_names[static_cast<std::size_t>(who)]) + " does not read GGUF";
    }
    auto const tensors = tensors_of(model);
    auto const inputs = inputs_to_store(tensors);
    for (auto const& [name, packed] : packed_layers(tensors)) {
        auto const input = inputs.find(name);
        auto const form = io::form_of(of->id, *packed, input == inputs.end() ? nullptr : &input->second);
        if (auto why = io::client_obstacle(who, form); !why.empty()) {
            return why;
        }
    }
    return {};
}

std::string layout::clients(decoder const& model) const {
    std::string names;
    for (std::size_t i = 0; i < io::client_names.size(); ++i) {
        if (client_obstacle(static_cast<client>(i), model).empty()) {
            names += (names.empty() ? "" : ", ") + std::string(io::client_names[i]);
        }
    }
    return names.empty() ? "detent" : names;
}

void layout::save(decoder const& model, std::filesystem::path const& source, std::filesystem::path const& directory,
                  std::string const& description) const {
    if (of != nullptr) {
        save_decoder(model, source, directory, description, of->id);
        return;
    }
    std::filesystem::create_directories(directory);
    for (auto const& warning : save_gguf(model, source, directory / gguf_name, description)) {
        std::cerr << "note: " << warning << '\n';
    }
}

std::vector<layout> layouts() {
    std::vector<layout> all;
    for (auto const* of : io::layouts()) {
        if (of->add != nullptr) {
            all.push_back({of});
        }
    }
    all.push_back({nullptr});
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

layout_choice choose_layout(decoder const& model, spec const* s, std::string const& name,
                            std::string const& for_client) {
    if (!name.empty()) {
        auto const wanted = find_layout(name);
        if (auto const obstacle = wanted.obstacle(model, s)) {
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
        auto const obstacle = tried.obstacle(model, s);
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

decoder save_and_reload(decoder const& model, std::filesystem::path const& source,
                        std::filesystem::path const& directory, std::string const& description,
                        layout_choice const& chosen) {
    layout const& l = chosen.of;
    l.save(model, source, directory, description);
    std::cout << "saved " << (l.of != nullptr ? directory : directory / gguf_name).string() << " in " << l.title()
              << (chosen.why.empty() ? "" : " (" + chosen.why + ")") << "; opened by " << l.clients(model) << '\n';
    return load_model(directory);
}

std::filesystem::path files_of(std::filesystem::path const& path) {
    bool const alone = std::filesystem::exists(path / gguf_name) && !std::filesystem::exists(path / "config.json");
    return alone ? path / gguf_name : path;
}

decoder load_model(std::filesystem::path const& path) {
    auto const files = files_of(path);
    return files.extension() == ".gguf" ? load_gguf(files) : load_decoder(path);
}

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <algorithm>
#include <array>
#include <iostream>
#include <system_error>
#include <vector>

#include "detent/io/packed_tensors.hpp"
#include "detent/model/load.hpp"
#include "detent/model/load_gguf.hpp"
#include "detent/model/plan_gguf.hpp"
#include "detent/model/save.hpp"
#include "detent/model/save_gguf.hpp"
#include "layouts.hpp"

using namespace detent;
using io::packed_layout;

namespace {

constexpr char const* gguf_name = "model.gguf";

template <packed_layout Layout> std::optional<error> obstacle_of(decoder const& model, spec const*) {
    if constexpr (Layout == packed_layout::detent) {
        inputs_to_store(tensors_of(model)); // whether they can be stored
        return {};
    } else {
        return layout_obstacle(tensors_of(model), Layout);
    }
}

template <packed_layout Layout>
void save(decoder const& model, std::filesystem::path const& source, std::filesystem::path const& directory,
          std::string const& description) {
    save_decoder(model, source, directory, description, Layout);
}

std::optional<error> gguf_obstacle_of(decoder const& model, spec const* s) {
    std::string const why = s != nullptr ? gguf_obstacle(model.configuration, *s) : gguf_obstacle(model);
    return why.empty() ? std::nullopt : std::optional(error("GGUF", why));
}

void save_gguf_in(decoder const& model, std::filesystem::path const& source, std::filesystem::path const& directory,
                  std::string const& description) {
    std::filesystem::create_directories(directory);
    for (auto const& warning : save_gguf(model, source, directory / gguf_name, description)) {
        std::cerr << "note: " << warning << '\n';
    }
}

constexpr std::array all_layouts{
    layout{"gptq", "GPTQ's v2 layout", "GPTQModel, transformers with it; vLLM where symmetric with 4 or 8 bits",
           obstacle_of<packed_layout::gptq_v2>, save<packed_layout::gptq_v2>},
    layout{"detent", "detent's layout", "detent only", obstacle_of<packed_layout::detent>, save<packed_layout::detent>},
    layout{"owq", "OWQ's layout", "OWQ's own code, which reads its names of tensors", obstacle_of<packed_layout::owq>,
           save<packed_layout::owq>},
    layout{"gguf", "GGUF", "llama.cpp and all that uses it", gguf_obstacle_of, save_gguf_in},
};

constexpr std::array<std::string_view, 1> for_transformers{"gptq"};
constexpr std::array<std::string_view, 1> for_llama_cpp{"gguf"};

constexpr std::array all_clients{
    client{"llama.cpp", "int4:g32:gptq", for_llama_cpp},
    client{"transformers", "int4:g128:gptq", for_transformers},
};

template <class Table> std::vector<std::string> names_of(Table const& table) {
    std::vector<std::string> names;
    for (auto const& entry : table) {
        names.emplace_back(entry.name);
    }
    return names;
}

layout const& find_layout(std::string_view name) {
    auto const found = std::ranges::find(all_layouts, name, &layout::name);
    return found != all_layouts.end() ? *found : throw error("--layout", "there is none '" + std::string(name) + "'");
}

} // namespace

std::span<layout const> layouts() { return all_layouts; }
std::span<client const> clients() { return all_clients; }
std::vector<std::string> layout_names() { return names_of(all_layouts); }
std::vector<std::string> client_names() { return names_of(all_clients); }

client const& find_client(std::string_view name) {
    auto const found = std::ranges::find(all_clients, name, &client::name);
    return found != all_clients.end() ? *found : throw error("--for", "there is none '" + std::string(name) + "'");
}

layout_choice choose_layout(decoder const& model, spec const* s, std::string const& name, std::string const& client) {
    if (!name.empty()) {
        layout const& wanted = find_layout(name);
        if (auto const obstacle = wanted.obstacle(model, s)) {
            throw *obstacle;
        }
        return {&wanted, {}};
    }
    std::vector<layout const*> candidates;
    if (client.empty()) {
        for (auto const& l : all_layouts) {
            candidates.push_back(&l);
        }
    } else {
        for (auto const layout_name : find_client(client).layouts) {
            candidates.push_back(&find_layout(layout_name));
        }
    }
    std::string why;
    for (auto const* candidate : candidates) {
        auto const obstacle = candidate->obstacle(model, s);
        if (!obstacle) {
            return {candidate, why};
        }
        why += (why.empty() ? "" : "; ") + std::string(obstacle->what());
    }
    throw error(client.empty() ? "model" : client, "no layout can hold what is asked for: " + why);
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
    layout const& l = *chosen.of;
    l.save(model, source, directory, description);
    std::cout << "saved " << directory.string() << " in " << l.title
              << (chosen.why.empty() ? "" : " (" + chosen.why + ")") << "; opened by " << l.readers << '\n';
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

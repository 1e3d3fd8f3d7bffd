// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "detent/core/error.hpp"
#include "detent/model/decoder.hpp"
#include "detent/quantizer/spec.hpp"

/// A layout that models are saved in. All that the program knows of one is its entry in `layouts()`.
struct layout {
    std::string_view name;    ///< on the command line
    std::string_view title;   ///< in sentences
    std::string_view readers; ///< the programs that open it, and what they ask of it

    /// What it cannot hold of a model; nothing where it can hold all. With a specification the model is only the
    /// outline of what that will make.
    std::optional<detent::error> (*obstacle)(detent::decoder const& model, detent::spec const* s);

    /// Writes a model that was loaded from `source` to `directory`, which it makes; `description` is kept beside it.
    void (*save)(detent::decoder const& model, std::filesystem::path const& source,
                 std::filesystem::path const& directory, std::string const& description);
};

/// All layouts; of those that can hold a model the first is the default.
std::span<layout const> layouts();

/// A program that runs models, and the layouts it opens, the best first.
struct client {
    std::string_view name;
    std::string_view specification; ///< that it opens in the first of these layouts
    std::span<std::string_view const> layouts;
};

std::span<client const> clients();

/// The names of all layouts, and of all clients.
std::vector<std::string> layout_names();
std::vector<std::string> client_names();

/// The client of that name.
client const& find_client(std::string_view name);

/// A layout, and why it is not the first choice where it is not.
struct layout_choice {
    layout const* of = nullptr;
    std::string why;
};

/// The layout called `name`; without a name the first that `client` opens and that can hold the model; without either
/// the first of all that can hold it. Throws `detent::error` that says what the layout, or each of a client's, cannot
/// hold.
layout_choice choose_layout(detent::decoder const& model, detent::spec const* s, std::string const& name,
                            std::string const& client);

/// Throws `detent::error` unless a model from `source` can be saved in the directory
/// `output`.
void check_destination(std::filesystem::path const& source, std::filesystem::path const& output);

/// Saves a model, says so and who opens it, and answers the model that is in the file.
detent::decoder save_and_reload(detent::decoder const& model, std::filesystem::path const& source,
                                std::filesystem::path const& directory, std::string const& description,
                                layout_choice const& chosen);

/// Where the tokenizer of a model is: the file of GGUF that is all of a directory, else the
/// path itself.
std::filesystem::path files_of(std::filesystem::path const& path);

/// The model in a directory or file of any layout.
detent::decoder load_model(std::filesystem::path const& path);

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "detent/core/error.hpp"
#include "detent/io/clients.hpp"
#include "detent/io/layout.hpp"
#include "detent/model/decoder.hpp"
#include "detent/quantizer/spec.hpp"

/// The file of GGUF in a directory that is saved in it.
inline constexpr char const* gguf_name = "model.gguf";

/// A layout that models are saved in: a checkpoint of safetensors, or a file of GGUF. With a specification, the models
/// that it is asked about are only outlines of what that will make.
struct layout {
    detent::io::checkpoint_layout const* of = nullptr; ///< null for GGUF

    /// On the command line, and in sentences.
    std::string name() const;
    std::string title() const;

    /// What it cannot hold of a model; nothing where it can hold all.
    std::optional<detent::error> obstacle(detent::decoder const& model, detent::spec const* s) const;

    /// Why a program does not open a model that it can hold; empty where it does.
    std::string client_obstacle(detent::io::client who, detent::decoder const& model) const;

    /// The programs that open a model that it can hold.
    std::string clients(detent::decoder const& model) const;

    /// Writes a model that was loaded from `source` to `directory`, which it makes; `description` is kept beside it.
    void save(detent::decoder const& model, std::filesystem::path const& source, std::filesystem::path const& directory,
              std::string const& description) const;
};

/// All layouts that can be written.
std::vector<layout> layouts();

/// The names of all layouts, and of the programs that layouts are chosen for.
std::vector<std::string> layout_names();
std::vector<std::string> client_names();

/// A specification that a program opens.
std::string specification_for(std::string const& client);

/// A layout, and why it is not the first choice where it is not.
struct layout_choice {
    layout of;
    std::string why;
};

/// The layout called `name`; without a name the first that `client` opens and that can hold the model; without either
/// the first of the usual ones that can hold it. Throws `detent::error` that says what the layout, or each of a
/// client's, cannot hold.
layout_choice choose_layout(detent::decoder const& model, detent::spec const* s, std::string const& name,
                            std::string const& client);

/// Throws `detent::error` unless a model from `source` can be saved in the directory `output`.
void check_destination(std::filesystem::path const& source, std::filesystem::path const& output);

/// Saves a model, says so and who opens it, and answers the model that is in the file.
detent::decoder save_and_reload(detent::decoder const& model, std::filesystem::path const& source,
                                std::filesystem::path const& directory, std::string const& description,
                                layout_choice const& chosen);

/// Where the tokenizer of a model is: the file of GGUF that is all of a directory, else the path itself.
std::filesystem::path files_of(std::filesystem::path const& path);

/// The model in a directory or file of any layout.
detent::decoder load_model(std::filesystem::path const& path);

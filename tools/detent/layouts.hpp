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

/// A layout that models are saved in: a checkpoint of safetensors, or one file of GGUF or ONNX. With a specification,
/// the models that it is asked about are only outlines of what that will make.
struct layout {
    detent::io::checkpoint_layout const* of = nullptr;          ///< null for files
    detent::io::model_file file = detent::io::model_file::gguf; ///< where it is no checkpoint

    /// On the command line, and in sentences.
    std::string name() const;
    std::string title() const;

    /// What it cannot hold of a model, or of the tokenizer in the directory `source`, if that is given; nothing where
    /// it can hold all.
    std::optional<detent::error> obstacle(detent::decoder const& model, detent::spec const* s,
                                          std::filesystem::path const& source) const;

    /// Why a program does not open a model that it can hold; empty where it does.
    std::string client_obstacle(detent::io::client who, detent::decoder const& model) const;

    /// The programs that open a model that it can hold.
    std::string clients(detent::decoder const& model) const;

    /// Whether a model that was saved in it can be loaded again.
    bool is_read() const;

    /// Where a model saved in `directory` is.
    std::filesystem::path path_in(std::filesystem::path const& directory) const;

    /// Writes a model that was loaded from `source` to `directory`, which it makes; `description` is kept beside it,
    /// and a checkpoint has shards of at most `shard_bytes` bytes.
    void save(detent::decoder const& model, std::filesystem::path const& source, std::filesystem::path const& directory,
              std::string const& description, detent::index_t shard_bytes) const;
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

/// The layout called `name` for a model whose tokenizer is in `source`; without a name the first that `client` opens
/// and that can hold the model; without either the first of the usual ones that can hold it. Throws `detent::error`
/// that says what the layout, or each of a client's, cannot hold.
layout_choice choose_layout(detent::decoder const& model, detent::spec const* s, std::filesystem::path const& source,
                            std::string const& name, std::string const& client);

/// Throws `detent::error` unless a model from `source` can be saved in the directory `output`.
void check_destination(std::filesystem::path const& source, std::filesystem::path const& output);

/// Says where a model was saved, how, and which programs open it.
void say_saved(layout_choice const& chosen, std::filesystem::path const& directory, std::string const& programs);

/// Saves a model, says so and who opens it, and answers the model that is in the file; `model` itself where that is one
/// of ONNX, which are only written.
detent::decoder save_and_reload(detent::decoder model, std::filesystem::path const& source,
                                std::filesystem::path const& directory, std::string const& description,
                                layout_choice const& chosen, detent::index_t shard_bytes);

/// Where the tokenizer of a model is: the file of GGUF that is all of a directory, else the path itself.
std::filesystem::path files_of(std::filesystem::path const& path);

/// Whether a path is a file of GGUF, or a directory that is no more than one.
bool is_gguf(std::filesystem::path const& path);

/// Where a model comes from, as a directory from which layouts copy what is beside weights: the model's own or, for a
/// file of GGUF, a temporary one of what that says (`detent::write_gguf_source`), of the name of the file.
class source_directory {
public:
    /// `model` was loaded from `path`.
    source_directory(std::filesystem::path const& path, detent::decoder const& model);
    source_directory(source_directory const&) = delete;
    source_directory& operator=(source_directory const&) = delete;
    ~source_directory();

    std::filesystem::path const& path() const { return path_; }

private:
    std::filesystem::path path_;
    std::filesystem::path temporary_; // to be removed; empty for none
};

/// The model in a directory or file of any layout.
detent::decoder load_model(std::filesystem::path const& path);

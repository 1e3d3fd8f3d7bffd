// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "detent/core/error.hpp"
#include "detent/core/index.hpp"
#include "detent/core/needs_exceptions.hpp"
#include "detent/io/mapped_file.hpp"
#include "detent/io/tensor_view.hpp"

namespace detent::inline DETENT_ABI::io {

class atomic_file;
class scratch_file;

/// No header is longer than this many bytes.
inline constexpr std::size_t max_header_bytes = 100'000'000;

/// A memory-mapped safetensors file. The constructor checks the whole header, so that every tensor handed out lies
/// inside the file and has exactly the bytes its type and shape ask for.
class safetensors_file {
public:
    /// Throws `error` naming the file and the tensor and field that are wrong.
    explicit safetensors_file(std::filesystem::path const& path);

    /// The path given to the constructor.
    std::filesystem::path const& path() const { return file_.path(); }

    /// The names of all tensors, sorted.
    std::vector<std::string> names() const;

    /// All tensors by name, valid as long as this object, also after moving it.
    std::map<std::string, tensor_view, std::less<>> const& tensors() const { return tensors_; }

    bool contains(std::string_view name) const { return tensors_.find(name) != tensors_.end(); }

    /// The tensor of that name, valid as long as this object, also after moving it. Throws `error` naming file and
    /// tensor when it is missing.
    tensor_view const& at(std::string_view name) const;

    /// The strings stored under `__metadata__`.
    std::map<std::string, std::string> const& metadata() const { return metadata_; }

    /// The file itself.
    mapped_file const& file() const { return file_; }

private:
    void read_metadata(nlohmann::json const& value);

    tensor_view read_tensor(std::string const& name, nlohmann::json const& value,
                            std::span<std::uint8_t const> data) const;

    // No byte belongs to two tensors or to none: nothing can hide in the file.
    void check_layout(std::span<std::uint8_t const> data) const;

    mapped_file file_;
    std::map<std::string, tensor_view, std::less<>> tensors_;
    std::map<std::string, std::string> metadata_;
};

/// A model's tensors: one safetensors file, or a directory with `model.safetensors`, or a directory with
/// `model.safetensors.index.json` and the files (shards) it names. If both are there the index counts, unless a file
/// that it names is missing.
class checkpoint {
public:
    /// Throws `error` naming the file and the tensor and field that are wrong.
    explicit checkpoint(std::filesystem::path path);

    /// The path given to the constructor.
    std::filesystem::path const& path() const { return path_; }

    /// The names of all tensors, sorted.
    std::vector<std::string> names() const;

    bool contains(std::string_view name) const { return tensors_.find(name) != tensors_.end(); }

    /// The tensor of that name, valid as long as this object, also after moving it. Throws `error` naming checkpoint
    /// and tensor when it is missing.
    tensor_view const& at(std::string_view name) const;

    /// The files the tensors are in, each once; a single one unless the checkpoint is sharded.
    std::vector<safetensors_file> const& files() const { return files_; }

    /// What is odd about the files: those that are there, but not read.
    std::vector<std::string> const& warnings() const { return warnings_; }

    /// Whether these bytes are of its files.
    bool owns(std::span<std::uint8_t const> bytes) const noexcept;

    /// Gives back the memory of the pages of a tensor, or a part of it, that was read; see `mapped_file::release`.
    void release(std::span<std::uint8_t const> bytes) const noexcept;

    /// Gives back the memory of all pages that were read.
    void release() const noexcept;

    /// @throws error naming a file that was changed, cut or removed since it was opened.
    void expect_unchanged() const;

private:
    bool has_shards(std::filesystem::path const& index_path) const;

    void open_file(std::filesystem::path const& path);

    void open_shards(std::filesystem::path const& index_path);

    std::filesystem::path path_;
    std::vector<safetensors_file> files_;
    std::map<std::string, tensor_view const*, std::less<>> tensors_; // into files_, whose tensors never move
    std::vector<std::string> warnings_;
};

/// The files of weights that a directory has by the names of this convention.
std::set<std::string> files_of_checkpoint(std::filesystem::path const& directory);

/// Collects tensors and writes them as safetensors. The same tensors give the same bytes, in whatever order they were
/// added: the largest element types come first, so that all data are aligned, then names in order.
class safetensors_writer {
public:
    /// Tensors that are added from now on are not kept in memory nor borrowed, but written to a temporary file in this
    /// directory at once, and copied from there when the file is saved.
    void keep_in_file(std::filesystem::path const& directory);

    /// Bytes of the files of this checkpoint, which must live until the last save, are borrowed always, and their pages
    /// given back when they were written.
    void copy_from(checkpoint const& source) { source_ = &source; }

    /// Adds a tensor without copying it: `bytes` must live until the last save. Throws `error` naming the tensor when
    /// the name is taken, reserved or not UTF-8, or when `bytes` is not what type and shape need.
    void add(std::string const& name, dtype type, std::vector<index_t> shape, std::span<std::uint8_t const> bytes);

    /// Adds a tensor and keeps its bytes. Throws like the other overload.
    void add(std::string const& name, dtype type, std::vector<index_t> shape, std::vector<std::uint8_t>&& bytes);

    /// Writes or replaces a file. `format` = `pt` is added to the metadata, since other readers refuse files without
    /// it. On failure throws `error` naming the file and leaves it as it was.
    void save(std::filesystem::path const& path, std::map<std::string, std::string> metadata = {}) const;

    /// Writes `model.safetensors` into an existing directory or, where a shard of at most `max_bytes_per_shard` bytes
    /// of data cannot hold all, `model-00001-of-0000N.safetensors`, ... and `model.safetensors.index.json`, tensors in
    /// order of name. A single tensor may have more bytes. Files appear only after all of them are written; then those
    /// of a checkpoint that was there before are removed. Throws `error` naming the file.
    void save_checkpoint(std::filesystem::path const& directory, index_t max_bytes_per_shard,
                         std::map<std::string, std::string> const& metadata = {}) const;

private:
    struct stored_tensor {
        tensor_view view;
        std::shared_ptr<std::vector<std::uint8_t> const> owned; // null if borrowed; shared by copies of the writer
        index_t size = 0;                                       // in bytes
        std::optional<std::uint64_t> offset = {};               // in the temporary file, where its bytes are there
    };
    using entry = std::pair<std::string const, stored_tensor>;

    void insert(std::string const& name, stored_tensor tensor);

    std::vector<std::vector<entry const*>> shards_of(index_t max_bytes) const;

    static bool is_utf8(std::string const& text);

    void write(atomic_file& file, std::vector<entry const*> tensors, std::map<std::string, std::string> metadata) const;

    void write_bytes(atomic_file& file, stored_tensor const& tensor) const;

    std::map<std::string, stored_tensor> tensors_;
    std::shared_ptr<scratch_file> scratch_; // or none
    checkpoint const* source_ = nullptr;    // or none
};

} // namespace detent::inline DETENT_ABI::io

#if !defined(DETENT_COMPILED)
#include "detent/io/safetensors.ipp"        // IWYU pragma: export
#include "detent/io/safetensors_writer.ipp" // IWYU pragma: export
#endif

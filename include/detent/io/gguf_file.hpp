// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "detent/core/index.hpp"
#include "detent/core/needs_exceptions.hpp"
#include "detent/io/ggml_type.hpp"
#include "detent/io/gguf_metadata.hpp"
#include "detent/io/mapped_file.hpp"
#include "detent/io/safetensors.hpp"
#include "detent/matrix/packed_matrix.hpp"

namespace detent::inline DETENT_ABI::io {

/// What tensors of a GGUF file begin at a multiple of, unless `general.alignment` says otherwise.
inline constexpr index_t gguf_alignment = 32;

/// A tensor of a GGUF file, borrowed from it.
struct gguf_tensor {
    std::string name;
    ggml_type const* type = nullptr;
    std::vector<index_t> shape;          ///< rows last, as in safetensors files: GGUF has the extents the other way
    std::span<std::uint8_t const> bytes; ///< at a multiple of the file's alignment

    /// As a matrix (out, in): the last extent is that of a row, the others are rows of it.
    extents matrix_shape() const;
};

/// A memory-mapped GGUF file of version 2 or 3. The constructor checks all of the header, so that what is handed out
/// lies inside the file, is there once, overlaps nothing, and has the bytes that type and shape ask for. Nothing is
/// allocated that the size of the file does not bound.
class gguf_file {
public:
    /// @throws error naming the file and the key or tensor that is wrong; also for big-endian files, version 1, and
    /// types that are not known.
    explicit gguf_file(std::filesystem::path const& path);

    /// The path given to the constructor.
    std::filesystem::path const& path() const { return file_.path(); }

    /// 2 or 3.
    std::uint32_t version() const { return version_; }

    gguf_metadata const& metadata() const { return metadata_; }

    /// All tensors, in the order of the file; valid as long as this object, also after moving it.
    std::vector<gguf_tensor> const& tensors() const { return tensors_; }

    bool contains(std::string_view name) const { return places_.find(name) != places_.end(); }

    /// The tensor of that name. @throws error naming file and tensor when it is missing.
    gguf_tensor const& at(std::string_view name) const;

    /// A tensor of plain numbers as those of safetensors files. @throws error when it is missing or has blocks.
    tensor_view plain(std::string_view name) const;

    /// A tensor of blocks as a packed matrix, see `ggml_type::read`. @throws error when it is missing, its type is not
    /// read, or a scale is no finite number.
    packed_matrix packed(std::string_view name) const;

    /// Rows [first, last) of it, such as one of several experts. @throws error as well when there are no such rows.
    packed_matrix packed_rows(std::string_view name, index_t first, index_t last) const;

    /// The numbers of any tensor that is read, row after row. @throws error as `plain` and `packed` do.
    std::vector<float> floats(std::string_view name) const;

private:
    class cursor;

    void read_metadata(cursor& from, std::uint64_t count);

    /// Reads the list of tensors; the places of their bytes in the data are in `offsets`.
    void read_tensors(cursor& from, std::uint64_t count, std::vector<std::uint64_t>& offsets);

    /// Finds the bytes of all tensors in the data that begin at the next multiple of the alignment after `header_end`.
    void place(index_t header_end, std::vector<std::uint64_t> const& offsets);

    /// No byte belongs to two tensors.
    void check_overlaps() const;

    index_t alignment() const;

    mapped_file file_;
    std::uint32_t version_ = 0;
    gguf_metadata metadata_;
    std::vector<gguf_tensor> tensors_;
    std::map<std::string, std::size_t, std::less<>> places_;
};

} // namespace detent::inline DETENT_ABI::io

#if !defined(DETENT_COMPILED)
#include "detent/io/gguf_file.ipp" // IWYU pragma: export
#endif

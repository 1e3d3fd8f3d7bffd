// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "detent/core/index.hpp"
#include "detent/core/needs_exceptions.hpp"
#include "detent/io/ggml_type.hpp"
#include "detent/io/gguf_metadata.hpp"
#include "detent/matrix/packed_matrix.hpp"

namespace detent::inline DETENT_ABI::io {

/// Collects metadata and tensors and writes them as a GGUF file of version 3, both in the order in which they were
/// added. Whether there is all that a reader needs is the caller's business.
class gguf_writer {
public:
    /// Takes the next bytes of a tensor.
    using sink = std::function<void(std::span<std::uint8_t const>)>;
    /// Gives all bytes of a tensor, in pieces of any size; called once for each save.
    using source = std::function<void(sink const&)>;

    /// What the file says of its model. `general.alignment` is followed if it is there, as a `std::uint32_t`.
    gguf_metadata& metadata() { return metadata_; }
    gguf_metadata const& metadata() const { return metadata_; }

    /// Adds a tensor of this type and shape, rows last, whose bytes are made when the file is written, so that not all
    /// of them need be in memory. @throws error naming the tensor when the name is empty, taken, or longer than the 63
    /// bytes that ggml reads, when there are more than 4 extents, or a row is not of whole blocks.
    void add(std::string name, ggml_type const& type, std::vector<index_t> shape, source bytes);

    /// Adds a tensor without copying it: `bytes` must live until the last save. @throws error as well when they are not
    /// what type and shape need.
    void add(std::string name, ggml_type const& type, std::vector<index_t> shape, std::span<std::uint8_t const> bytes);

    /// Adds a tensor and keeps its bytes. @throws error like the last.
    void add(std::string name, ggml_type const& type, std::vector<index_t> shape, std::vector<std::uint8_t>&& bytes);

    /// Adds a packed matrix (out, in), which must live until the last save. @throws error as well when blocks of this
    /// type cannot hold it.
    void add(std::string name, ggml_type const& type, packed_matrix const& w);

    /// Writes or replaces a file. @throws error naming the file, which stays as it was, or the tensor whose source gave
    /// too few or too many bytes.
    void save(std::filesystem::path const& path) const;

private:
    struct stored_tensor {
        std::string name;
        ggml_type const* type;
        std::vector<index_t> shape;
        index_t size; ///< in bytes
        source bytes;
    };

    index_t alignment() const;

    /// All that is before the data, without what fills it up to the alignment.
    std::string header(index_t alignment) const;

    gguf_metadata metadata_;
    std::vector<stored_tensor> tensors_;
    std::set<std::string> names_;
};

} // namespace detent::inline DETENT_ABI::io

#if !defined(DETENT_COMPILED)
#include "detent/io/gguf_writer.ipp" // IWYU pragma: export
#endif

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "detent/core/needs_exceptions.hpp"
#include "detent/io/packed_tensors.hpp"
#include "detent/io/safetensors.hpp"
#include "detent/io/tensor_reader.hpp"
#include "detent/matrix/activation_quantizer.hpp"
#include "detent/model/configuration.hpp"
#include "detent/model/decoder.hpp"

namespace detent::inline DETENT_ABI {

/// The first of `prefixes` with which `tensor` is in the checkpoint. Where it is with none, the first of all: the error
/// about the missing tensor then names the usual one.
std::string find_prefix(io::checkpoint const& checkpoint, std::vector<std::string> const& prefixes,
                        std::string const& tensor);

/// What the attention of a block and its probabilities, which have no weights, are called in files.
std::string attention_name(block const& b, char const* last = "attention");
inline std::string probabilities_name(block const& b) { return attention_name(b, "probabilities"); }

/// How files say that probabilities are rounded to so many bits.
activation_quantizer probability_quantizer(int bits);

/// The quantizer of the input of layer `name`, `in` numbers wide, that tensors in detent's layout describe; none where
/// there are no such tensors. @throws error naming one that makes no sense.
std::optional<activation_quantizer> stored_quantizer(io::tensor_reader const& tensors, std::string const& name,
                                                     index_t in);

/// A decoder in a Hugging Face directory with float weights (F32, F16, BF16) or packed ones, in any of `io::layouts`,
/// whose blocks are read when they are wanted and not kept. Files are mapped, and their pages given back once they were
/// read.
class decoder_file {
public:
    /// Reads all but the blocks. @throws error naming the file and the field or tensor that is missing, wrong or not
    /// supported.
    explicit decoder_file(std::filesystem::path const& directory);
    decoder_file(decoder_file&&) noexcept;
    decoder_file& operator=(decoder_file&&) noexcept;
    decoder_file(decoder_file const&) = delete;
    decoder_file& operator=(decoder_file const&) = delete;
    ~decoder_file();

    /// The decoder without its blocks.
    decoder const& ends() const;

    /// The same, handed over.
    decoder take_ends();

    /// How many blocks there are.
    index_t size() const;

    /// Block `i`. Throws like the constructor, and when a file of the directory has changed since it was opened.
    block read_block(index_t i) const;

    /// @throws error when the directory has something that none of the blocks, all of which were read, has asked for.
    void expect_all_read() const;

    /// @throws error naming a file that has changed since it was opened.
    void expect_unchanged() const;

    io::checkpoint const& weights() const;

private:
    struct parts;
    std::unique_ptr<parts> parts_;
};

/// Reads `config.json` and the safetensors of a Hugging Face directory with float weights (F32, F16, BF16) or packed
/// ones, in any of `io::layouts`. @throws error naming the file and the field or tensor that is missing, wrong or
/// not supported.
decoder load_decoder(std::filesystem::path const& directory);

} // namespace detent::inline DETENT_ABI

#if !defined(DETENT_COMPILED)
#include "detent/model/load.ipp" // IWYU pragma: export
#endif

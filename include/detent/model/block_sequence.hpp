// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstddef>

#include "detent/core/needs_exceptions.hpp"
#include "detent/model/block.hpp"
#include "detent/model/decoder.hpp"

namespace detent::inline DETENT_ABI {

/// The blocks of a decoder, of which whoever walks them has one at a time: it is opened, run, perhaps replaced, and
/// closed. Where they come from and what becomes of one that is closed is the sequence's business, so that nothing
/// above it needs all of them in memory.
class block_sequence {
public:
    block_sequence() = default;
    block_sequence(block_sequence const&) = delete;
    block_sequence& operator=(block_sequence const&) = delete;
    virtual ~block_sequence() = default;

    /// How many there are.
    virtual index_t size() const = 0;

    /// Block `i`, which lives until it is closed; none is open. @throws error when it cannot be read.
    virtual block& open(index_t i) = 0;

    /// Ends the work with block `i`, which is open.
    virtual void close(index_t i) = 0;
};

/// The blocks of a decoder in memory; what is done to one that is open is done to the decoder's, which must outlive
/// this.
class blocks_in_memory final : public block_sequence {
public:
    explicit blocks_in_memory(decoder& model) : model_(model) {}

    index_t size() const override { return static_cast<index_t>(model_.blocks.size()); }
    block& open(index_t i) override { return model_.blocks[static_cast<std::size_t>(i)]; }
    void close(index_t) override {}

private:
    decoder& model_;
};

} // namespace detent::inline DETENT_ABI

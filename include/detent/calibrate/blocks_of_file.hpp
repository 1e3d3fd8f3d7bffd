// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <utility>
#include <vector>

#include "detent/calibrate/block_journal.hpp"
#include "detent/core/needs_exceptions.hpp"
#include "detent/model/block_file.hpp"
#include "detent/model/block_sequence.hpp"
#include "detent/model/load.hpp"

namespace detent::inline DETENT_ABI {

/// The blocks of a file, each read when it is opened and forgotten when it is closed, but for an outline of what it was
/// then. The file must outlive it.
class blocks_of_file final : public block_sequence {
public:
    /// `prepare` changes every block that was opened.
    explicit blocks_of_file(decoder_file const& file, std::function<void(block&)> prepare = {})
        : file_(file), prepare_(std::move(prepare)), outlines_(static_cast<std::size_t>(file.size())) {}

    index_t size() const override { return file_.size(); }

    block& open(index_t i) override {
        block& b = open_.emplace(file_.read_block(i));
        if (prepare_) {
            prepare_(b);
        }
        return b;
    }

    void close(index_t i) override {
        outlines_[static_cast<std::size_t>(i)] = outline_of(*open_);
        open_.reset();
    }

    /// The outlines of the blocks that were closed (`outline_of`), handed over.
    std::vector<block> take_outlines() { return std::exchange(outlines_, {}); }

private:
    decoder_file const& file_;
    std::function<void(block&)> prepare_;
    std::optional<block> open_;
    std::vector<block> outlines_;
};

/// The blocks that a journal keeps, all of which are done. What this refers to must outlive it.
class blocks_of_journal final : public block_sequence {
public:
    /// `outlines` are those of the blocks.
    blocks_of_journal(block_journal const& journal, std::vector<block> const& outlines)
        : journal_(journal), outlines_(outlines) {}

    index_t size() const override { return static_cast<index_t>(outlines_.size()); }

    block& open(index_t i) override {
        block& b = open_.emplace(outline_of(outlines_[static_cast<std::size_t>(i)]));
        journal_.read(i, b);
        return b;
    }

    void close(index_t) override { open_.reset(); }

private:
    block_journal const& journal_;
    std::vector<block> const& outlines_;
    std::optional<block> open_;
};

} // namespace detent::inline DETENT_ABI

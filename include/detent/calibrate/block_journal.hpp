// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "detent/calibrate/activation_store.hpp"
#include "detent/calibrate/quantize_linear.hpp"
#include "detent/core/needs_exceptions.hpp"
#include "detent/model/block.hpp"

namespace detent::inline DETENT_ABI {

/// What must be the same for a run to go on where another ended, by name.
using run_settings = std::map<std::string, std::string>;

/// The file that says what else of a journal there is.
inline constexpr char const* journal_name = "journal.json";

/// A directory in which a run that quantizes block by block keeps every block that is done and the activations before
/// the next one, so that another run goes on from there with the bits that the first one would have had. All that is
/// said to be there is whole and on disk, whenever the program ends. For one program at a time, which the caller sees
/// to (`io::work_directory`).
class block_journal {
public:
    /// Opens or begins a journal in an existing directory. What a program that was stopped left unfinished there is
    /// removed. @throws error that names a setting which is not that of the run that began it, or a file of it that
    /// is damaged.
    block_journal(std::filesystem::path directory, run_settings settings);

    /// How many blocks are done: the first ones.
    index_t done() const { return static_cast<index_t>(blocks_.size()); }

    /// What happened to the layers of the blocks that are done, in their order.
    std::vector<layer_report> const& reports() const { return reports_; }

    /// Puts what became of block `i`, which is done, in the place of what `b` has, the block before that.
    void read(index_t i, block& b) const;

    /// The activations before the first block that is not done, for stores of their shape; those of a float model
    /// beside the quantized one are empty where there is none. Nothing is to be read before a block is done.
    void read(activation_store& quantized, activation_store& floats) const;

    /// Notes that the next block is done, what happened to its layers, and the activations after it.
    void add(block const& b, std::span<layer_report const> reports, activation_store const& quantized,
             activation_store const& floats);

private:
    std::filesystem::path block_path(index_t i) const;
    std::filesystem::path file_of(std::string const& stream) const;
    void read(std::string const& stream, activation_store& x) const;
    std::string write(std::string const& stream, activation_store const& x) const;
    void open();
    void remove_others() const;
    void commit() const;

    std::filesystem::path directory_;
    run_settings settings_;
    std::vector<std::string> blocks_;            // the hash of each file
    std::map<std::string, std::string> streams_; // the hash of each file of activations, by name
    std::vector<layer_report> reports_;
};

} // namespace detent::inline DETENT_ABI

#if !defined(DETENT_COMPILED)
#include "detent/calibrate/block_journal.ipp" // IWYU pragma: export
#endif

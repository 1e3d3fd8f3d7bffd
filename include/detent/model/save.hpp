// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "detent/core/eigen.hpp"
#include "detent/core/error.hpp"
#include "detent/core/function_ref.hpp"
#include "detent/core/needs_exceptions.hpp"
#include "detent/io/packed_tensors.hpp"
#include "detent/io/safetensors.hpp"
#include "detent/model/block.hpp"
#include "detent/model/block_sequence.hpp"
#include "detent/model/configuration.hpp"
#include "detent/model/decoder.hpp"
#include "detent/model/linear_layer.hpp"
#include "detent/model/model_tensors.hpp"

namespace detent::inline DETENT_ABI {

/// Which layout a quantized model is saved in, and why not GPTQ's if nobody asked for another.
struct save_plan {
    io::packed_layout layout = io::packed_layout::gptq;
    std::string obstacle; ///< what GPTQ's layout cannot hold; empty where it can hold all or another was asked for
};

/// What `layout` cannot hold: an error that names the first such layer. Nothing when every layer fits, and they fit
/// together.
std::optional<error> layout_obstacle(model_tensors const& model, io::packed_layout layout);

/// Adds tensor `name` of a model: the bytes of `original` where these are the same numbers, else in its element type
/// where that has all of them, else as F32. Without an original, `type` is the type to try. @throws error when the
/// original has another number of elements.
void add_floats(io::safetensors_writer& file, std::string const& name, float_tensor const& tensor,
                io::tensor_view const* original, io::dtype type = io::dtype::f32);

/// The layout that is `wanted`; by default GPTQ's where it can hold every layer, else detent's own. @throws error
/// naming a layer that the wanted layout cannot hold, and why, or one whose input's grid has no name.
save_plan plan_save(model_tensors const& model, std::optional<io::packed_layout> wanted = {});
inline save_plan plan_save(decoder const& model, std::optional<io::packed_layout> wanted = {}) {
    return plan_save(tensors_of(model), wanted);
}

/// No file of weights is larger than this, as for most programs that write them.
inline constexpr index_t usual_shard_bytes = 5'000'000'000;

/// Saves a model of which not all is in memory at once: it is told what the model will be, then shown one part after
/// the other, and writes all of it.
class model_saver {
public:
    /// `model` says all of the model but its numbers, so that packed weights may be outlines (`outline_of`); it is not
    /// looked at later. `source` is the directory that the model was loaded from. With a `scratch` directory, what is
    /// added is kept in a temporary file there, else borrowed from its parts. @throws error as `plan_save`, and when
    /// the source cannot be read.
    model_saver(model_tensors const& model, std::filesystem::path const& source, std::string const& description,
                std::optional<io::packed_layout> wanted, std::filesystem::path const& scratch = {});
    model_saver(model_saver&&) noexcept;
    model_saver& operator=(model_saver&&) noexcept;
    model_saver(model_saver const&) = delete;
    model_saver& operator=(model_saver const&) = delete;
    ~model_saver();

    /// The layout that was chosen.
    save_plan const& plan() const;

    /// Adds a part of the model with its numbers. Layers that share a tensor of the source come together.
    /// @throws error when the source lacks a tensor of it.
    void add(model_tensors const& part);

    /// Writes all, and what the model does not use of the source, to an existing directory as `save_model` does, and
    /// opens it again to see that it can be read. @throws error naming the file that cannot be written.
    void write(std::filesystem::path const& directory, function_ref<void(nlohmann::json&)> configure,
               index_t shard_bytes = usual_shard_bytes);

private:
    struct parts;
    std::unique_ptr<parts> parts_;
};

/// Writes `config.json` and the weights of a model to `directory`, which it creates: `model.safetensors`, or shards of
/// at most `shard_bytes` bytes with an index. `source` is the directory that `model` was loaded from, with float or
/// packed weights: what the model has not changed, and what it does not use, is copied as it is, and so are tokenizer,
/// licence and the like (`copy_sidecars`). Layers that share a tensor stay in it as long as all of them are float; else
/// each gets tensors of its own. `description` goes into the quantization settings, `configure` may change the other
/// ones. The directory appears whole or not at all, with files that were there before and are none of a checkpoint's
/// (`io::work_directory`, which makes it beside that). @throws error when one cannot be written, when `source` is the
/// directory or lacks a tensor of the model, and like `plan_save`.
save_plan save_model(model_tensors const& model, std::filesystem::path const& source,
                     std::filesystem::path const& directory, std::string const& description,
                     std::optional<io::packed_layout> wanted, function_ref<void(nlohmann::json&)> configure,
                     index_t shard_bytes = usual_shard_bytes);

/// Copies what other programs need beside the weights of a model, or people should know, from one directory to another:
/// files of the tokenizer, settings of generation and of images, chat templates, licences, and `README.md` as
/// `README.source.md`. @throws error when one cannot be written.
void copy_sidecars(std::filesystem::path const& source, std::filesystem::path const& directory);

/// Changes a configuration so that it says of embeddings and output head what a decoder has: whether they are `tied`.
/// `path` is where it was read from.
void configure_head(nlohmann::json& configuration, bool tied, std::filesystem::path const& path);

/// Writes a decoder to an existing directory as `save_model` does, of which one block is in memory at a time: the
/// blocks of `model` are outlines of those that `blocks` opens. What is packed is kept in a temporary file in
/// `scratch`.
/// @throws error as `save_model`; the directory is then half written.
save_plan write_decoder(decoder const& model, block_sequence& blocks, std::filesystem::path const& source,
                        std::filesystem::path const& directory, std::string const& description,
                        std::optional<io::packed_layout> wanted, std::filesystem::path const& scratch,
                        index_t shard_bytes = usual_shard_bytes);

/// Saves a decoder as `save_model` does.
save_plan save_decoder(decoder const& model, std::filesystem::path const& source,
                       std::filesystem::path const& directory, std::string const& description,
                       std::optional<io::packed_layout> wanted = {}, index_t shard_bytes = usual_shard_bytes);

} // namespace detent::inline DETENT_ABI

#if !defined(DETENT_COMPILED)
#include "detent/model/save.ipp" // IWYU pragma: export
#endif

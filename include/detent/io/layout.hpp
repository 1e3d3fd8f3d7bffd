// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "detent/core/abi.hpp"
#include "detent/io/quantization_settings.hpp"
#include "detent/io/safetensors.hpp"
#include "detent/io/stored_input.hpp"
#include "detent/io/tensor_reader.hpp"
#include "detent/matrix/packed_matrix.hpp"

namespace detent::inline DETENT_ABI::io {

/// How packed matrices are spread over the tensors of a checkpoint.
enum class packed_layout {
    gptq,               ///< AutoGPTQ's and GPTQModel's; zero points stored minus one (v1) or as they are (v2)
    owq,                ///< OWQ's: whole rows, and weak columns
    awq,                ///< AutoAWQ's version "gemm"
    compressed_tensors, ///< vLLM's: integers, FP8, NVFP4, MXFP4, each layer in one of them
    modelopt,           ///< NVIDIA's FP8 and NVFP4: only read
    fp8,                ///< E4M3 with scales of blocks, as DeepSeek publishes: only read
    mxfp4,              ///< gpt-oss's tensors of all experts: only read
    detent              ///< any grid; see docs/file_format.md
};

/// A linear layer that is to be saved.
struct layer_to_save {
    std::string name;
    packed_matrix const* weight = nullptr; ///< none where it stays float
    stored_input const* input = nullptr;   ///< none where its input is not rounded
    bool in_block = true;                  ///< else an embedding, a head or the like
};

/// Reads packed matrices of one layout from a checkpoint. Every error names the tensor or the field of the settings.
class layout_reader {
public:
    explicit layout_reader(checkpoint const& file) : tensors_(file) {}
    layout_reader(layout_reader const&) = delete;
    layout_reader& operator=(layout_reader const&) = delete;
    virtual ~layout_reader() = default;

    /// Whether layer `name` is stored packed.
    virtual bool contains(std::string const& name) const = 0;

    /// Layer `name` of this shape. @throws error when a tensor is missing, has another shape or makes no sense.
    virtual packed_matrix read(std::string const& name, extents shape) const = 0;

    /// How the input of layer `name`, `in` numbers wide, is rounded; nothing where it is not. @throws error where it is
    /// said wrongly, or in a way of another layout.
    virtual std::optional<stored_input> input(std::string const& name, index_t in) const;

    /// Matrix number `expert` of a tensor of those of all experts, of which there are `experts`; nothing where there is
    /// none of that name.
    virtual std::optional<packed_matrix> read_expert(std::string const& name, index_t experts, index_t expert,
                                                     extents shape) const;

    /// Whether a tensor is none of a layer, but one that the layout has beside them.
    virtual bool is_extra(std::string const& tensor) const;

    /// Whether layers may have biases that their configuration does not know.
    virtual bool has_new_biases() const { return false; }

    /// What the settings ask for that is not done.
    std::vector<std::string> const& warnings() const { return warnings_; }

protected:
    tensor_reader tensors_;
    std::vector<std::string> warnings_;
};

/// A layout: all that the program knows of it. The functions for writing are null where it is only read.
struct checkpoint_layout {
    packed_layout id;
    std::string_view name;   ///< what people call it, such as `gptq`
    std::string_view title;  ///< in messages: `GPTQ's`
    std::string_view method; ///< `quant_method` in the settings

    /// Why it cannot hold a matrix, of which codes and scales are not looked at; empty when it can.
    std::string (*obstacle)(packed_matrix const& w) = nullptr;
    /// Why it cannot say that the input of a layer with such a weight (null: float) is rounded so; empty when it can.
    std::string (*input_obstacle)(packed_matrix const* w, stored_input const& input) = nullptr;
    /// Why it cannot hold two such layers in one checkpoint; null where it can hold any.
    std::string (*pair_obstacle)(packed_matrix const& first, packed_matrix const& other) = nullptr;
    /// What `config.json` says of a checkpoint with these layers, among them at least one that is packed or whose
    /// input is rounded.
    nlohmann::json (*settings)(std::span<layer_to_save const> all) = nullptr;
    /// Adds the tensors of a layer without obstacles to a checkpoint with such settings; what it borrows must live
    /// until the file is saved.
    void (*add)(safetensors_writer& file, layer_to_save const& layer, nlohmann::json const& settings) = nullptr;

    /// A reader of a checkpoint with settings whose method is this one. @throws error where a setting is impossible or
    /// not supported.
    std::unique_ptr<layout_reader> (*open)(checkpoint const& file, quantization_settings const& settings);
};

/// Whether a tensor is a scale of cached keys or values.
inline bool is_cache_scale(std::string_view tensor) {
    return tensor.ends_with(".k_scale") || tensor.ends_with(".v_scale");
}

/// The names of the tensors that say, in detent's layout, how an input is rounded.
inline constexpr std::string_view input_tensors[] = {".input_grid",       ".input_width", ".input_scale_type",
                                                     ".input_scale_unit", ".input_scale", ".input_zero",
                                                     ".input_shifts"};

} // namespace detent::inline DETENT_ABI::io

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <filesystem>
#include <map>
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
#include "detent/model/configuration.hpp"
#include "detent/model/decoder.hpp"
#include "detent/model/linear_layer.hpp"
#include "detent/model/norm_layer.hpp"

namespace detent::inline DETENT_ABI {

/// Which layout a quantized model is saved in, and why not GPTQ's if nobody asked for another.
struct save_plan {
    io::packed_layout layout = io::packed_layout::gptq_v2;
    std::string obstacle; ///< what GPTQ's layout cannot hold; empty where it can hold all or another was asked for
};

/// A tensor of floats that a model holds.
struct float_tensor {
    std::span<float const> numbers;
    std::vector<index_t> shape; ///< where the source has none
    float offset = 0;           ///< what loading added to the numbers of files
};

/// What a model has in files: all that saving needs to know of it, whatever kind of model it is. It refers to the
/// model.
struct model_tensors {
    /// A linear layer, and what the layouts of other programs allow it.
    struct entry {
        linear_layer const* of = nullptr;
        bool in_block = false;   ///< else only detent's layout may have its codes
        bool biased = false;     ///< has a bias by its configuration
        bool may_be_new = false; ///< the source may lack it
    };

    std::vector<entry> layers;
    std::vector<block const*> blocks;           ///< whose attention may round what it reads
    std::map<std::string, float_tensor> floats; ///< norms and tables, by their whole names
    std::vector<std::string> left_out;          ///< tensors of the source that the model does not have any more

    /// Adds a layer outside the blocks, such as an output head.
    void add(linear_layer const& layer, bool biased, bool may_be_new = false);

    /// Adds a norm.
    void add(norm_layer const& norm, model_configuration const& c);

    /// Adds a table under its whole name.
    void add(std::string const& name, matrix const& table);

    /// Adds the layers and norms of a block, whose tensors are called `name` and what `c.names` says.
    void add(block const& b, std::string const& name, model_configuration const& c);
};

/// The tensors of a decoder.
model_tensors tensors_of(decoder const& model);

/// The packed layers of a model by name.
std::map<std::string, packed_matrix const*> packed_layers(model_tensors const& model);
inline std::map<std::string, packed_matrix const*> packed_layers(decoder const& model) {
    return packed_layers(tensors_of(model));
}

/// The layers of `model` whose inputs are rounded, attention among them (`attention_name`), with what files say of
/// that. @throws error naming a layer whose quantizer they cannot describe, for example because its grid has no name.
std::map<std::string, io::stored_input> inputs_to_store(model_tensors const& model);

/// What `layout`, which is GPTQ's v2 or OWQ's, cannot hold: an error that names the first such layer. Nothing when
/// every layer fits and they agree in bits and group width.
std::optional<error> layout_obstacle(model_tensors const& model, io::packed_layout layout);

/// Adds tensor `name` of a model: the bytes of `original` where these are the same numbers, else in its element type
/// where that has all of them, else as F32. Without an original, `type` is the type to try. @throws error when the
/// original has another number of elements.
void add_floats(io::safetensors_writer& file, std::string const& name, float_tensor const& tensor,
                io::tensor_view const* original, io::dtype type = io::dtype::f32);

/// The layout that is `wanted`; by default GPTQ's v2 where it can hold every layer, else detent's own. @throws error
/// naming a layer that the wanted layout cannot hold, and why, or one whose input's grid has no name.
save_plan plan_save(model_tensors const& model, std::optional<io::packed_layout> wanted = {});
inline save_plan plan_save(decoder const& model, std::optional<io::packed_layout> wanted = {}) {
    return plan_save(tensors_of(model), wanted);
}

/// Writes `config.json` and `model.safetensors` of a model to `directory`, which it creates. `source` is the directory
/// that `model` was loaded from, with float weights: what the model has not changed, and what it does not use, is
/// copied as it is. Layers that share a tensor stay in it as long as all of them are float; else each gets tensors of
/// its own. `description` goes into the quantization settings, `configure` may change the other ones. The files appear
/// whole or not at all. @throws error when one cannot be written, when `source` is the directory, is quantized itself
/// or lacks a tensor of the model, and like `plan_save`.
save_plan save_model(model_tensors const& model, std::filesystem::path const& source,
                     std::filesystem::path const& directory, std::string const& description,
                     std::optional<io::packed_layout> wanted, function_ref<void(nlohmann::json&)> configure);

/// Saves a decoder as `save_model` does.
save_plan save_decoder(decoder const& model, std::filesystem::path const& source,
                       std::filesystem::path const& directory, std::string const& description,
                       std::optional<io::packed_layout> wanted = {});

} // namespace detent::inline DETENT_ABI

#if !defined(DETENT_COMPILED)
#include "detent/model/save.ipp" // IWYU pragma: export
#endif

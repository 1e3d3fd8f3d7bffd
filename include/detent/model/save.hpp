// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "detent/core/error.hpp"
#include "detent/core/needs_exceptions.hpp"
#include "detent/io/packed_tensors.hpp"
#include "detent/io/safetensors.hpp"
#include "detent/model/decoder.hpp"

namespace detent::inline DETENT_ABI {

/// Which layout a quantized model is saved in, and why not GPTQ's if nobody asked for another.
struct save_plan {
    io::packed_layout layout = io::packed_layout::gptq_v2;
    std::string obstacle; ///< what GPTQ's layout cannot hold; empty where it can hold all or another was asked for
};

/// The linear layers of `model`: the embeddings, the output head where it has one of its own, those of the blocks.
std::vector<linear_layer const*> linear_layers(decoder const& model);

/// The packed layers of `model` by name.
std::map<std::string, packed_matrix const*> packed_layers(decoder const& model);

/// The layers of `model` whose inputs are rounded, attention among them (`attention_name`), with what files say of
/// that. @throws error naming a layer whose quantizer they cannot describe, for example because its grid has no name.
std::map<std::string, io::stored_input> inputs_to_store(decoder const& model);

/// What `layout`, which is GPTQ's v2 or OWQ's, cannot hold: an error that names the first such layer. Nothing when
/// every layer fits and they agree in bits and group width.
std::optional<error> layout_obstacle(decoder const& model, io::packed_layout layout);

/// A tensor of floats that a model holds.
struct float_tensor {
    std::span<float const> numbers;
    std::vector<index_t> shape;
};

/// Adds tensor `name` of a model: the bytes of `original` where these are the same numbers, else in its element type
/// where that has all of them, else as F32. `original` may be null. @throws error when it has another shape.
void add_floats(io::safetensors_writer& file, std::string const& name, float_tensor const& tensor,
                io::tensor_view const* original);

/// The layout that is `wanted`; by default GPTQ's v2 where it can hold every layer, else detent's own. @throws error
/// naming a layer that the wanted layout cannot hold, and why, or one whose input's grid has no name.
save_plan plan_save(decoder const& model, std::optional<io::packed_layout> wanted = {});

/// Writes `config.json` and `model.safetensors` of a model to `directory`, which it creates. `source` is the directory
/// that `model` was loaded from, with float weights: what the model has not changed is copied as it is. `description`
/// goes into the quantization settings. The files appear whole or not at all. @throws error when one cannot be written,
/// when `source` is the directory, is quantized itself or lacks a tensor of the model, and like `plan_save`.
save_plan save_decoder(decoder const& model, std::filesystem::path const& source,
                       std::filesystem::path const& directory, std::string const& description,
                       std::optional<io::packed_layout> wanted = {});

} // namespace detent::inline DETENT_ABI

#if !defined(DETENT_COMPILED)
#include "detent/model/save.ipp" // IWYU pragma: export
#endif

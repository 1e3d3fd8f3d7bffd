// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "detent/core/eigen.hpp"
#include "detent/core/needs_exceptions.hpp"
#include "detent/io/layout.hpp"
#include "detent/model/block.hpp"
#include "detent/model/configuration.hpp"
#include "detent/model/decoder.hpp"
#include "detent/model/linear_layer.hpp"
#include "detent/model/norm_layer.hpp"

namespace detent::inline DETENT_ABI {

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

/// The tensors of a decoder that are of no block, and those of block `i` of it, which need not be in it.
model_tensors tensors_of_ends(decoder const& model);
model_tensors tensors_of_block(decoder const& model, index_t i, block const& b);

/// The packed layers of a model by name.
std::map<std::string, packed_matrix const*> packed_layers(model_tensors const& model);
inline std::map<std::string, packed_matrix const*> packed_layers(decoder const& model) {
    return packed_layers(tensors_of(model));
}

/// The layers of `model` whose inputs are rounded, attention among them (`attention_name`), with what files say of
/// that. @throws error naming a layer whose quantizer they cannot describe, for example because its grid has no name.
std::map<std::string, io::stored_input> inputs_to_store(model_tensors const& model);

/// What layouts are asked to save of a model whose inputs are rounded as `inputs` say: its layers, and attention where
/// that rounds what it reads. It refers to both.
std::vector<io::layer_to_save> layers_to_save(model_tensors const& model,
                                              std::map<std::string, io::stored_input> const& inputs);

} // namespace detent::inline DETENT_ABI

#if !defined(DETENT_COMPILED)
#include "detent/model/model_tensors.ipp" // IWYU pragma: export
#endif

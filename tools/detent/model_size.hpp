// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <filesystem>
#include <optional>

#include "detent/io/safetensors.hpp"
#include "detent/model/configuration.hpp"
#include "detent/model/decoder.hpp"

/// Bits of a weight of the quantized layers, or of the outlines of such; nothing where there are none.
std::optional<double> bits_per_weight(detent::decoder const& model);

/// The bytes of all files with weights in a directory, or of the file.
double bytes_of(std::filesystem::path const& model);

/// Bits that a checkpoint of any layout has for each weight of the layers that are quantized in blocks, whatever their
/// tensors are, biases left out; nothing where the model is not one of a known family.
std::optional<double> stored_bits_per_weight(std::filesystem::path const& directory,
                                             detent::io::checkpoint const& file);

/// How many numbers a model has.
struct model_numbers {
    double all = 0;
    double layers = 0; ///< of these, in the layers of blocks that are quantized
};
model_numbers numbers_of(detent::decoder const& model);

/// The numbers that packed matrices hold, and those of tensors that they replace, which a tied output head does not.
struct packed_size {
    double packed = 0;
    double replaced = 0;
};
packed_size packed_numbers(detent::decoder const& model);

/// The bits of the numbers of a float checkpoint as `config.json` says it, 16 where it does not.
int float_bits(std::filesystem::path const& configuration);

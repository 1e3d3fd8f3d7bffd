// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "detent/core/index.hpp"
#include "detent/core/needs_exceptions.hpp"
#include "detent/model/block.hpp"
#include "detent/model/configuration.hpp"
#include "detent/nn/activation.hpp"
#include "detent/nn/attention.hpp"

namespace detent::inline DETENT_ABI {

/// The sizes and switches that all encoders have.
struct encoder_configuration {
    index_t hidden = 0;       ///< features of a token between blocks
    index_t layers = 0;       ///< number of blocks
    index_t intermediate = 0; ///< features inside the feed-forward network
    nn::attention_heads heads;
    nn::activation activation = nn::activation::gelu;
    float norm_eps = 1e-12F;
    norm_placement norms = norm_placement::after;
    bool qkv_bias = true; ///< all other linear layers have one
};

/// The sizes of an encoder of text, such as BERT.
struct text_encoder_configuration : encoder_configuration {
    index_t vocabulary = 0;
    index_t max_positions = 0;
    index_t token_types = 0;
};

/// How the tensors of a vision transformer are called.
enum class image_encoder_names {
    vit,  ///< as Hugging Face's ViT
    torch ///< as PyTorch's nn.TransformerEncoderLayer
};

/// The sizes of an encoder of square images, such as ViT.
struct image_encoder_configuration : encoder_configuration {
    image_encoder_names names = image_encoder_names::vit;
    index_t image_size = 0; ///< pixels in a row and in a column
    index_t patch_size = 0; ///< likewise, of a patch
    index_t channels = 0;
    index_t classes = 0;
    std::vector<float> pixel_mean; ///< per channel, of pixels from 0 to 1; empty where the model does not say
    std::vector<float> pixel_std;  ///< likewise

    /// Patches of an image.
    index_t patches() const { return (image_size / patch_size) * (image_size / patch_size); }
    /// Numbers of an image.
    index_t pixels() const { return channels * image_size * image_size; }
};

/// Gives every head an equal share of the hidden features. Throws `error` where that is no whole number; the two names
/// are those of the fields.
nn::attention_heads parse_heads(configuration_fields const& fields, std::string const& heads_field,
                                std::string const& hidden_field, index_t hidden);

/// The activation in `field`. Throws `error` where it is none of `known_activations`.
nn::activation parse_activation(configuration_fields const& fields, std::string const& field,
                                std::string const& missing);

/// What BERT and ViT say in the same words.
void parse_encoder(configuration_fields const& fields, encoder_configuration& c);

/// Interprets the fields of a Hugging Face `config.json` with `model_type` bert. Missing optional fields take the
/// defaults of Hugging Face. Throws `error` naming `file` and the field that is wrong or asks for something this
/// library does not compute.
text_encoder_configuration parse_text_encoder(nlohmann::json const& json, std::string const& file);

/// A number for each channel in `field`. Throws `error` where it is anything else, or a number is not finite or, if
/// `positive`, not above 0.
std::vector<float> parse_channels(configuration_fields const& fields, std::string const& field, index_t channels,
                                  bool positive);

/// Interprets the fields of the `config.json` of a vision transformer, in one of two dialects: that of Hugging Face
/// with `model_type` vit, where missing optional fields take its defaults; or, where there is `embed_dim` and no
/// `model_type`, plain sizes (image_size, patch_size, in_channels, embed_dim, depth, num_heads, mlp_dim, num_classes),
/// pixel_mean and pixel_std of a model made of PyTorch's nn.TransformerEncoderLayer, with the defaults of that: norms
/// after the branches, ReLU and an eps of 1e-5 unless norm_first, activation or layer_norm_eps say otherwise. Throws
/// `error` naming `file` and the field that is wrong or asks for something this library does not compute.
image_encoder_configuration parse_image_encoder(nlohmann::json const& json, std::string const& file);

/// Reads how a Hugging Face `preprocessor_config.json` makes numbers of pixels into `c`. Throws `error` naming `file`
/// and the field that is wrong or asks for something else than (pixel / 255 - mean) / std.
void parse_preprocessor(nlohmann::json const& json, std::string const& file, image_encoder_configuration& c);

} // namespace detent::inline DETENT_ABI

#if !defined(DETENT_COMPILED)
#include "detent/model/encoder_configuration.ipp" // IWYU pragma: export
#endif

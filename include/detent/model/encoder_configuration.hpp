// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "detent/core/index.hpp"
#include "detent/core/needs_exceptions.hpp"
#include "detent/model/configuration.hpp"
#include "detent/model/configuration_fields.hpp"

namespace detent::inline DETENT_ABI {

/// The sizes and switches of an encoder of text, such as BERT.
struct text_encoder_configuration : model_configuration {
    index_t token_types = 0;        ///< 0 where tokens have none
    std::optional<index_t> padding; ///< the token that has no position and does not count for those of others (RoBERTa)
};

/// What an encoder of images tells the class from, all of it behind the last norm.
enum class image_readout {
    none,              ///< hidden states are all it makes
    class_token,       ///< the state of the class token
    class_and_patches, ///< that, and beside it the mean of those of the patches (DINOv2)
    two_tokens         ///< logits are the mean of those of the class token and of the one behind it (DeiT)
};

/// The sizes and switches of an encoder of square images, such as ViT.
struct image_encoder_configuration : model_configuration {
    index_t image_size = 0; ///< pixels in a row and in a column
    index_t patch_size = 0; ///< likewise, of a patch
    index_t channels = 0;
    index_t classes = 0;
    image_readout readout = image_readout::class_token;
    index_t extra_tokens = 0;      ///< between the class token and the patches: to distil into, or registers
    bool extra_positions = false;  ///< whether positions are added to them
    std::vector<float> pixel_mean; ///< per channel, of pixels from 0 to 1; empty where the model does not say
    std::vector<float> pixel_std;  ///< likewise

    std::string class_token_name = "embeddings.cls_token"; ///< of the tensors, after the prefix
    std::string extra_tokens_name;
    std::string second_head; ///< without the prefix, of `image_readout::two_tokens`

    /// Patches of an image.
    index_t patches() const { return (image_size / patch_size) * (image_size / patch_size); }
    /// Tokens of an image.
    index_t tokens() const { return 1 + extra_tokens + patches(); }
    /// Numbers of an image.
    index_t pixels() const { return channels * image_size * image_size; }
};

/// Interprets the fields of a Hugging Face `config.json` of any family of `text_encoder_families()`. Missing optional
/// fields take the defaults of Hugging Face. @throws error naming `file` and the field that is wrong, asks for
/// something this library does not compute, or is not known and may change what the model computes.
text_encoder_configuration parse_text_encoder(nlohmann::json const& json, std::string const& file);

/// A number for each channel in `field`. Throws `error` where it is anything else, or a number is not finite or, if
/// `positive`, not above 0.
std::vector<float> parse_channels(configuration_fields const& fields, std::string const& field, index_t channels,
                                  bool positive);

/// Interprets the fields of the `config.json` of a vision transformer, in one of two dialects: that of Hugging Face for
/// any family of `image_encoder_families()`, where missing optional fields take its defaults, and where classes are
/// read unless `architectures` says that the model has none; or, where there is `embed_dim` and no `model_type`, plain
/// sizes (image_size, patch_size, in_channels, embed_dim, depth, num_heads, mlp_dim, num_classes), pixel_mean and
/// pixel_std of a model made of PyTorch's nn.TransformerEncoderLayer, with the defaults of that: norms after the
/// branches, ReLU and an eps of 1e-5 unless norm_first, activation or layer_norm_eps say otherwise. Throws like
/// `parse_text_encoder`.
image_encoder_configuration parse_image_encoder(nlohmann::json const& json, std::string const& file);

/// Reads how a Hugging Face `preprocessor_config.json` makes numbers of pixels into `c`. Throws `error` naming `file`
/// and the field that is wrong or asks for something else than (pixel / 255 - mean) / std.
void parse_preprocessor(nlohmann::json const& json, std::string const& file, image_encoder_configuration& c);

/// The `model_type`s of encoders that are known.
std::vector<std::string> encoder_families();

} // namespace detent::inline DETENT_ABI

#if !defined(DETENT_COMPILED)
#include "detent/model/encoder_configuration.ipp" // IWYU pragma: export
#endif

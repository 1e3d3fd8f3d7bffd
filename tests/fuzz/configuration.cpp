// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// config.json and preprocessor_config.json of decoders and encoders; what is read keeps its bounds.

#include <cmath>

#include <nlohmann/json.hpp>

#include "detent/io/json.hpp"
#include "detent/io/quantization_settings.hpp"
#include "detent/model/configuration.hpp"
#include "detent/model/encoder_configuration.hpp"
#include "fuzz.hpp"

DETENT_FUZZ_TARGET(configuration) {
    using namespace detent;
    fuzz::attempt([&] {
        auto const json = io::parse_json(fuzz::text_of(data, size), "config.json");
        fuzz::attempt([&] {
            auto const c = parse_configuration(json, "config.json");
            constexpr index_t most = index_t{1} << 24;
            for (index_t const n : {c.vocabulary, c.hidden, std::ssize(c.layers), c.intermediate, c.heads.heads,
                                    c.heads.kv_heads, c.heads.head_dim, c.max_positions}) {
                fuzz::expect(n >= 1 && n <= most, "a size is in its bounds");
            }
            fuzz::expect(c.heads.heads * c.heads.head_dim <= most && c.heads.kv_heads <= c.heads.heads, "heads fit");
            fuzz::expect(c.norm_eps > 0 && std::isfinite(c.norm_eps), "eps is a positive number");
            for (auto const token : c.end_of_text) {
                fuzz::expect(token >= 0 && token < c.vocabulary, "a token is in the vocabulary");
            }
            for (auto const& layer : c.layers) {
                if (layer.rotary) {
                    (void)nn::rotary_of(*layer.rotary, 1).at(0, 1);
                }
            }
        });
        fuzz::attempt([&] {
            auto const c = parse_text_encoder(json, "config.json");
            fuzz::expect(c.hidden >= 1 && std::isfinite(c.norm_eps), "an encoder has sizes");
        });
        fuzz::attempt([&] {
            auto c = parse_image_encoder(json, "config.json");
            fuzz::expect(c.patches() >= 1 && c.pixels() >= 1, "an image has patches");
            parse_preprocessor(json, "preprocessor_config.json", c);
        });
        fuzz::put(fuzz::room() / "config.json", fuzz::text_of(data, size));
        fuzz::attempt([&] { (void)io::quantization_settings::of(fuzz::room()).method(); });
    });
    return 0;
}

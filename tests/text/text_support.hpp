// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "detent/text/part.hpp"
#include "detent/text/read_token_model.hpp"
#include "detent/text/tokenizer.hpp"
#include "io/failure_message.hpp"

#if defined(DETENT_UNICODE)
#define NEEDS_UNICODE()
#else
#define NEEDS_UNICODE() GTEST_SKIP() << "built without PCRE2 and utf8proc"
#endif

using ids = std::vector<std::int32_t>;

/// JSON written in a test.
inline nlohmann::json json_of(std::string const& text) { return nlohmann::json::parse(text); }

/// A tokenizer of a tokenizer.json written in a test.
inline detent::text::tokenizer tokenizer_of(nlohmann::json const& json) {
    return detent::text::tokenizer(detent::text::read_tokenizer_json(json, "tokenizer.json"));
}

/// The ids that a model written in a test gives for a piece.
inline ids encoded(nlohmann::json const& model, std::string const& piece) {
    ids result;
    detent::text::read_token_model(detent::text::part(model, "model"))->encode(piece, result);
    return result;
}

/// What a part of the type `Part` that is written in a test says of itself, the error without it.
template <class Part> std::string problem_of(nlohmann::json const& json) {
    return failure_message([&] { Part const made(detent::text::part(json, "part")); });
}

/// The shared data of the project, which a lone clone does not have.
inline std::filesystem::path shared(std::string const& name) { return std::filesystem::path(DETENT_SHARED_DIR) / name; }

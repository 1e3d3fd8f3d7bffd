// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "detent/io/json.hpp"
#include "detent/text/part.hpp"
#include "detent/text/post_processor.hpp"

namespace detent::inline DETENT_ABI::text {

// A token of BertProcessing, ["[CLS]", 101].
inline std::int32_t token_of_pair(part const& json, std::string const& field) {
    auto const& pair = json.value(field);
    if (!pair.is_array() || pair.size() != 2) {
        throw json.wrong(field, "is not a token and its id");
    }
    return token_id_of(pair[1], json.name() + ", field '" + field + "'");
}

inline post_processor read_template(part const& json) {
    post_processor result;
    bool text_seen = false;
    for (auto const& piece : json.parts("single")) {
        if (piece.find("Sequence") != nullptr) {
            part const sequence(piece.value("Sequence"), piece.name());
            if (text_seen || sequence.text("id") != "A") {
                throw json.wrong("single", "has more than one text");
            }
            text_seen = true;
            continue;
        }
        part const special(piece.value("SpecialToken"), piece.name());
        part const all(json.value("special_tokens"), json.name() + ", special_tokens");
        std::string const name = special.text("id");
        part const token(all.value(name), all.name() + ", '" + io::printable(name) + "'");
        auto const& ids = token.value("ids");
        if (!ids.is_array()) {
            throw token.wrong("ids", "is not an array");
        }
        for (auto const& id : ids) {
            (text_seen ? result.back : result.front).push_back(token_id_of(id, token.name()));
        }
    }
    return text_seen ? result : throw json.wrong("single", "has no text");
}

DETENT_INLINE post_processor read_post_processor(part const& json) {
    std::string const type = json.text("type");
    if (type == "TemplateProcessing") {
        return read_template(json);
    }
    if (type == "BertProcessing" || type == "RobertaProcessing") {
        return {{token_of_pair(json, "cls")}, {token_of_pair(json, "sep")}};
    }
    if (type == "ByteLevel") {
        return {};
    }
    if (type != "Sequence") {
        throw json.unknown_type();
    }
    post_processor result;
    for (auto const& inner : json.parts("processors")) { // each puts its tokens around those of the ones before
        auto const around = read_post_processor(inner);
        result.front.insert(result.front.begin(), around.front.begin(), around.front.end());
        result.back.insert(result.back.end(), around.back.begin(), around.back.end());
    }
    return result;
}

} // namespace detent::inline DETENT_ABI::text

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <string>

#include <nlohmann/json.hpp>

#include "detent/core/error.hpp"
#include "detent/io/json.hpp"
#include "detent/text/part.hpp"
#include "detent/text/token_model.hpp"
#include "detent/text/vocabulary.hpp"

namespace detent::inline DETENT_ABI::text {

DETENT_INLINE vocabulary read_vocabulary(part const& json) {
    auto const& list = json.value("vocab");
    if (!list.is_object()) {
        throw json.wrong("vocab", "is not an object of ids by token");
    }
    vocabulary result;
    std::string const subject = json.name() + ", vocab";
    for (auto const& [token, id] : list.items()) {
        result.add(token, token_id_of(id, subject + ", id of '" + io::printable(token) + "'"), subject);
    }
    return result;
}

} // namespace detent::inline DETENT_ABI::text

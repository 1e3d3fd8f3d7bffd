// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "detent/core/error.hpp"
#include "detent/core/index.hpp"
#include "detent/core/needs_exceptions.hpp"

namespace detent::inline DETENT_ABI::io {

/// What a checkpoint says of how its weights are packed: an object of JSON whose fields are read with errors that name
/// them. A value.
class quantization_settings {
public:
    /// Nothing: no weights are packed.
    quantization_settings();

    /// An object, called `subject` in errors, such as `config.json, field 'quantization_config'`.
    quantization_settings(nlohmann::json object, std::string subject);

    /// Those of a directory: `quantization_config` in `config.json`, else `quantize_config.json` (GPTQ),
    /// `quant_config.json` (AWQ) or `hf_quant_config.json` (ModelOpt), where the method may be left unsaid. @throws
    /// error naming the file.
    static quantization_settings of(std::filesystem::path const& directory);

    bool empty() const;

    /// The method that they name in lower case, such as `gptq`; that of the file where they do not say it; empty for
    /// none.
    std::string method() const;

    nlohmann::json const& json() const { return *object_; }

    bool has(char const* field) const;

    /// An error about a field, to be thrown.
    error wrong(std::string const& field, std::string const& problem) const;

    /// A field that is text, an integer or a truth value; `missing` where it is not there or null. @throws error
    /// where it is anything else.
    std::string text(char const* field, std::string_view missing) const;
    index_t integer(char const* field, index_t missing) const;
    bool truth(char const* field, bool missing) const;

    /// A field that is a list of two positive integers. @throws error where it is anything else, or missing.
    extents size(char const* field) const;

    /// The object in a field, as settings of its own; none where it is missing.
    std::optional<quantization_settings> object(char const* field) const;

    /// @throws error unless the field is missing or the text `only`.
    void expect(char const* field, std::string_view only) const;

private:
    nlohmann::json const* find(char const* field) const;

    std::shared_ptr<nlohmann::json const> object_; // shared by copies; never null
    std::string subject_;                          // with `field '...` to be continued
    std::string path_;                             // of fields above
    std::string default_method_;
};

} // namespace detent::inline DETENT_ABI::io

#if !defined(DETENT_COMPILED)
#include "detent/io/quantization_settings.ipp" // IWYU pragma: export
#endif

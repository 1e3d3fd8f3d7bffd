// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <initializer_list>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "detent/core/error.hpp"
#include "detent/core/index.hpp"

namespace detent::inline DETENT_ABI {

/// Reads the fields of one `config.json` or of an object in it, and knows at the end which of them nobody asked for; a
/// field that is null counts as missing. Every error names file and field.
class configuration_fields {
public:
    configuration_fields(nlohmann::json const& json, std::string file);

    /// What errors call it.
    std::string const& file() const { return file_; }

    /// Whether the field is there, even if it is null.
    bool has(std::string_view field) const;

    /// The error `problem` about `field`.
    error wrong(std::string_view field, std::string const& problem) const;

    /// The value of `field`, or nothing where it is missing or null.
    nlohmann::json const* find(std::string_view field) const;

    /// The first of `names` that is there, as fields have other names in other versions; else the first of all. Throws
    /// where several are there and contradict each other.
    std::string either(std::initializer_list<std::string_view> names) const;

    /// A number of things from 1 to `most`, by default more than any model has and few enough that the product of two
    /// fits an `index_t`.
    index_t size(std::string_view field, std::optional<index_t> missing = {}, index_t most = index_t{1} << 24) const;

    /// A number of things, or 0 for none; a missing field is `missing`.
    index_t size_or_none(std::string_view field, index_t missing = 0) const;

    /// A number above 0 that is a finite float.
    double positive(std::string_view field, double missing) const;

    /// A number above 0 that is a finite float, or nothing where the field is missing.
    std::optional<double> positive(std::string_view field) const;

    bool flag(std::string_view field, bool missing) const;

    std::string text(std::string_view field, std::optional<std::string> missing = {}) const;

    /// Refuses a switch that this library does not implement unless it is off.
    void require(std::string_view field, bool supported, bool missing) const;

    /// Refuses what the field says where that is not `supported`.
    void expect(std::string_view field, nlohmann::json const& supported) const;

    /// Positive numbers, as many as `count` says.
    std::vector<double> numbers(std::string_view field, index_t count) const;

    /// Words, one for each of `count` layers; none where the field is missing.
    std::vector<std::string> words(std::string_view field, index_t count) const;

    /// Token ids in `field`: none, one, or a list. Ids outside the vocabulary, with which some models say that they
    /// have none, are left out.
    std::vector<index_t> token_ids(std::string_view field, index_t vocabulary) const;

    /// The fields of the object `field`, or nothing where it is missing.
    std::optional<configuration_fields> object(std::string_view field) const;

    /// Takes these fields for read: they say nothing about what the model computes.
    void ignore(std::initializer_list<std::string_view> fields) const;

    /// @throws error about a field that nobody has asked for and that is not off (null, false, or empty): it might
    /// change what the model computes.
    void expect_all_read() const;

private:
    nlohmann::json const* json_;
    std::string file_;
    mutable std::set<std::string, std::less<>> read_;
};

} // namespace detent::inline DETENT_ABI

#if !defined(DETENT_COMPILED)
#include "detent/model/configuration_fields.ipp" // IWYU pragma: export
#endif

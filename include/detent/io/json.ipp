// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cstddef>
#include <exception>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "detent/core/error.hpp"
#include "detent/core/function_ref.hpp"
#include "detent/io/json.hpp"
#include "detent/io/text_file.hpp"

namespace detent::inline DETENT_ABI::io {

DETENT_INLINE std::string printable(std::string_view text) {
    constexpr std::size_t longest = 200;
    std::size_t end = std::min(text.size(), longest);
    while (end > 0 && end < text.size() && (static_cast<unsigned char>(text[end]) & 0xC0U) == 0x80U) {
        --end; // do not cut a UTF-8 character in two
    }
    std::string result(text.substr(0, end));
    std::ranges::replace_if(
        result, [](unsigned char c) { return c < 0x20U || c == 0x7FU; }, '?');
    return end < text.size() ? result + "..." : result;
}

/// Builds a value from what the parser reports (`nlohmann::json_sax`). The library's own builder calls back for each
/// value and then searches the whole list that an object lies in, which takes quadratic time.
class json_builder {
public:
    using json = nlohmann::json;
    using member_callback = function_ref<void(std::string const&, json const&)>;

    /// `members`, which may be null, takes the members of the object at the top in place of that object.
    json_builder(std::string const& subject, member_callback const* members) : subject_(subject), members_(members) {}

    json& result() { return result_; }

    bool null() { return scalar(nullptr); }
    bool boolean(bool value) { return scalar(value); }
    bool number_integer(json::number_integer_t value) { return scalar(value); }
    bool number_unsigned(json::number_unsigned_t value) { return scalar(value); }
    bool number_float(json::number_float_t value, std::string const& /*text*/) { return scalar(value); }
    bool string(std::string& value) { return scalar(std::move(value)); }
    bool binary(json::binary_t& value) { return scalar(json::binary(std::move(value))); } // not in text
    bool start_object(std::size_t /*size*/) { return open(json::object()); }
    bool start_array(std::size_t /*size*/) { return open(json::array()); }
    bool end_object() { return close(); }
    bool end_array() { return close(); }

    bool key(std::string& name) {
        if (is_at_top()) {
            name_ = name; // a copy keeps the memory of both for the next
            slot_ = &member_;
            return true;
        }
        auto const [at, is_new] = open_.back()->get_ref<json::object_t&>().emplace(std::move(name), nullptr);
        if (!is_new) {
            throw error(subject_, "repeats the key '" + printable(at->first) + "'");
        }
        slot_ = &at->second;
        return true;
    }

    bool parse_error(std::size_t /*position*/, std::string const& /*token*/, std::exception const& e) {
        std::string_view message = e.what();
        if (auto const end = message.find("] "); end != std::string_view::npos) {
            message.remove_prefix(end + 2); // "[json.exception.parse_error.101] "
        }
        throw error(subject_, "is not valid JSON: " + printable(message));
    }

private:
    /// Whether the next value is one of those that `members_` takes.
    bool is_at_top() const { return members_ != nullptr && open_.size() == 1; }

    bool scalar(json value) {
        put(std::move(value));
        return finish();
    }

    /// Where the value is: in the result, the innermost list that is open, or behind the key of an object.
    json* put(json value) {
        std::size_t const most = members_ != nullptr ? json_limits{}.values_of_member : json_limits{}.values;
        if (++values_ > most) {
            throw error(subject_,
                        (members_ != nullptr ? "'" + printable(name_) + "' has more than " : "has more than ") +
                            std::to_string(most) + " values");
        }
        if (open_.empty()) {
            return &(result_ = std::move(value));
        }
        if (auto* const list = open_.back()->get_ptr<json::array_t*>()) {
            return &list->emplace_back(std::move(value));
        }
        return &(*slot_ = std::move(value));
    }

    bool open(json container) {
        if (open_.size() >= json_limits{}.levels) {
            throw error(subject_, "is nested deeper than " + std::to_string(json_limits{}.levels) + " levels");
        }
        if (members_ != nullptr && open_.empty() && !container.is_object()) {
            throw error(subject_, "is not an object");
        }
        open_.push_back(put(std::move(container)));
        return true;
    }

    bool close() {
        open_.pop_back();
        return finish();
    }

    /// A value is there as a whole.
    bool finish() {
        if (members_ != nullptr && open_.empty() && !result_.is_object()) {
            throw error(subject_, "is not an object");
        }
        if (is_at_top()) {
            (*members_)(name_, member_);
            values_ = 0;
        }
        return true;
    }

    std::string const& subject_;
    member_callback const* members_;
    json result_;
    json member_;             // of the object at the top
    std::string name_;        // of that
    std::vector<json*> open_; // lists and objects, the innermost last
    json* slot_ = nullptr;    // of the key that was read last
    std::size_t values_ = 0;
};

/// The most values that `text` can have, by its commas and opening brackets.
inline std::size_t most_values(std::string_view text) {
    std::size_t count = 1;
    bool quoted = false;
    for (std::size_t i = 0; i < text.size(); ++i) {
        char const c = text[i];
        if (quoted && c == '\\') {
            ++i; // what follows does not end the string
        } else if (c == '"') {
            quoted = !quoted;
        } else {
            count += !quoted && (c == ',' || c == '[' || c == '{') ? 1 : 0;
        }
    }
    return count;
}

DETENT_INLINE void expect_json_text(std::string_view text, std::string const& subject) {
    if (text.find('\0') != std::string_view::npos) {
        throw error(subject, "is not valid JSON: it contains a zero byte"); // the parser would take it for the end
    }
    if (text.size() > json_limits{}.bytes) {
        throw error(subject, "has " + std::to_string(text.size()) + " bytes of JSON; the limit is " +
                                 std::to_string(json_limits{}.bytes));
    }
}

DETENT_INLINE nlohmann::json parse_json(std::string_view text, std::string const& subject) {
    expect_json_text(text, subject);
    if (most_values(text) > json_limits{}.values) {
        throw error(subject, "has more than " + std::to_string(json_limits{}.values) + " values");
    }
    json_builder builder(subject, nullptr);
    nlohmann::json::sax_parse(text.begin(), text.end(), &builder);
    return std::move(builder.result());
}

DETENT_INLINE void parse_members(std::string_view text, std::string const& subject,
                                 function_ref<void(std::string const&, nlohmann::json const&)> f) {
    expect_json_text(text, subject);
    json_builder builder(subject, &f);
    nlohmann::json::sax_parse(text.begin(), text.end(), &builder);
}

DETENT_INLINE nlohmann::json read_json(std::filesystem::path const& path) {
    mapped_file const file(path);
    return parse_json({reinterpret_cast<char const*>(file.bytes().data()), file.bytes().size()}, path.string());
}

} // namespace detent::inline DETENT_ABI::io

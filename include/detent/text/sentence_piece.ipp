// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#if defined(DETENT_SENTENCEPIECE)
#include <sentencepiece_processor.h>
#endif

#include "detent/core/error.hpp"
#include "detent/io/json.hpp"
#include "detent/text/charsmap.hpp"
#include "detent/text/missing.hpp"
#include "detent/text/sentence_piece.hpp"

namespace detent::inline DETENT_ABI::text {

#if defined(DETENT_SENTENCEPIECE)

// A message of Protocol Buffers, read as far as to find the fields that are bytes.
class protobuf_reader {
public:
    protobuf_reader(std::string_view bytes, std::string const& subject) : rest_(bytes), subject_(subject) {}

    // The next field that is bytes; the number 0 at the end.
    std::pair<std::uint64_t, std::string_view> next() {
        while (!rest_.empty()) {
            std::uint64_t const key = varint();
            switch (key & 7U) {
            case 0:
                varint();
                break;
            case 1:
                take(8);
                break;
            case 2:
                return {key >> 3, take(varint())};
            case 5:
                take(4);
                break;
            default:
                throw error(subject_, "is not a model of SentencePiece");
            }
        }
        return {0, {}};
    }

private:
    std::string_view take(std::uint64_t size) {
        if (size > rest_.size()) {
            throw error(subject_, "is not a model of SentencePiece, or cut off");
        }
        auto const result = rest_.substr(0, static_cast<std::size_t>(size));
        rest_.remove_prefix(static_cast<std::size_t>(size));
        return result;
    }

    std::uint64_t varint() {
        std::uint64_t result = 0;
        for (unsigned shift = 0; shift < 64; shift += 7) {
            auto const byte = static_cast<unsigned char>(take(1)[0]);
            result |= std::uint64_t{byte & 0x7FU} << shift;
            if (byte < 0x80) {
                return result;
            }
        }
        throw error(subject_, "is not a model of SentencePiece");
    }

    std::string_view rest_;
    std::string const& subject_;
};

// SentencePiece searches its map of characters without looking where the arrays end.
inline void expect_searchable(std::string const& bytes, std::string const& subject) {
    protobuf_reader model(bytes, subject);
    for (auto field = model.next(); field.first != 0; field = model.next()) {
        bool const is_normalizer = field.first == 3 || field.first == 5;
        protobuf_reader spec(is_normalizer ? field.second : std::string_view(), subject);
        for (auto inner = spec.next(); inner.first != 0; inner = spec.next()) {
            if (inner.first == 2 && !inner.second.empty()) { // precompiled_charsmap
                charsmap(std::string(inner.second), subject);
            }
        }
    }
}

inline sentencepiece::SentencePieceProcessor const& processor_of(std::shared_ptr<void const> const& pointer) {
    return *static_cast<sentencepiece::SentencePieceProcessor const*>(pointer.get());
}

DETENT_INLINE sentence_piece_model::sentence_piece_model(std::string const& bytes, std::string subject)
    : subject_(std::move(subject)) {
    expect_searchable(bytes, subject_);
    auto processor = std::make_shared<sentencepiece::SentencePieceProcessor>();
    if (auto const status = processor->LoadFromSerializedProto(bytes); !status.ok()) {
        throw error(subject_, "is refused by SentencePiece: " + io::printable(status.message()));
    }
    processor_ = std::move(processor);
}

DETENT_INLINE void sentence_piece_model::encode(std::string_view piece, std::vector<std::int32_t>& ids) const {
    std::vector<int> found;
    if (auto const status = processor_of(processor_).Encode(piece, &found); !status.ok()) {
        throw error(subject_, "SentencePiece: " + io::printable(status.message()));
    }
    ids.insert(ids.end(), found.begin(), found.end());
}

DETENT_INLINE std::int32_t sentence_piece_model::largest_id() const {
    return processor_of(processor_).GetPieceSize() - 1;
}

DETENT_INLINE std::optional<std::string> sentence_piece_model::token(std::int32_t id) const {
    return id < 0 || id > largest_id() ? std::nullopt : std::optional(processor_of(processor_).IdToPiece(id));
}

DETENT_INLINE std::optional<std::int32_t> sentence_piece_model::id(std::string_view token) const {
    int const found = processor_of(processor_).PieceToId(token); // that of the unknown token where there is none
    return this->token(found) == std::string(token) ? std::optional(std::int32_t{found}) : std::nullopt;
}

DETENT_INLINE std::optional<std::string> sentence_piece_model::decode(std::span<std::int32_t const> ids) const {
    std::vector<int> known;
    for (auto const id : ids) {
        if (id >= 0 && id <= largest_id()) {
            known.push_back(id);
        }
    }
    std::string text;
    if (auto const status = processor_of(processor_).Decode(known, &text); !status.ok()) {
        throw error(subject_, "SentencePiece: " + io::printable(status.message()));
    }
    return text;
}

inline std::optional<std::int32_t> nothing_if_negative(int id) {
    return id < 0 ? std::nullopt : std::optional(std::int32_t{id});
}

DETENT_INLINE std::optional<std::int32_t> sentence_piece_model::begin_id() const {
    return nothing_if_negative(processor_of(processor_).bos_id());
}

DETENT_INLINE std::optional<std::int32_t> sentence_piece_model::end_id() const {
    return nothing_if_negative(processor_of(processor_).eos_id());
}

#else

DETENT_INLINE sentence_piece_model::sentence_piece_model(std::string const&, std::string) { raise_no_sentence_piece(); }
DETENT_INLINE void sentence_piece_model::encode(std::string_view, std::vector<std::int32_t>&) const {}
DETENT_INLINE std::int32_t sentence_piece_model::largest_id() const { return -1; }
DETENT_INLINE std::optional<std::string> sentence_piece_model::token(std::int32_t) const { return {}; }
DETENT_INLINE std::optional<std::int32_t> sentence_piece_model::id(std::string_view) const { return {}; }
DETENT_INLINE std::optional<std::string> sentence_piece_model::decode(std::span<std::int32_t const>) const {
    return {};
}
DETENT_INLINE std::optional<std::int32_t> sentence_piece_model::begin_id() const { return {}; }
DETENT_INLINE std::optional<std::int32_t> sentence_piece_model::end_id() const { return {}; }

#endif

} // namespace detent::inline DETENT_ABI::text

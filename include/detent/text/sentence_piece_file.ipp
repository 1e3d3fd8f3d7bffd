// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "detent/core/error.hpp"
#include "detent/text/sentence_piece_file.hpp"

namespace detent::inline DETENT_ABI::text {

// One field after another of a message of Protocol Buffers.
class protobuf_fields {
public:
    struct field {
        std::uint64_t number = 0;  // 0 at the end
        std::uint64_t integer = 0; // of varints and of fixed numbers, whose bits it has
        std::string_view bytes = {};
    };

    protobuf_fields(std::string_view bytes, std::string const& subject) : rest_(bytes), subject_(subject) {}

    field next() {
        if (rest_.empty()) {
            return {};
        }
        std::uint64_t const key = varint();
        field f{.number = key >> 3};
        switch (key & 7U) {
        case 0:
            f.integer = varint();
            break;
        case 1:
            f.integer = fixed(8);
            break;
        case 2:
            f.bytes = take(varint());
            break;
        case 5:
            f.integer = fixed(4);
            break;
        default:
            throw wrong();
        }
        return f.number != 0 ? f : throw wrong();
    }

private:
    error wrong() const { return error(subject_, "is no model of SentencePiece, or cut off"); }

    std::string_view take(std::uint64_t size) {
        if (size > rest_.size()) {
            throw wrong();
        }
        auto const result = rest_.substr(0, static_cast<std::size_t>(size));
        rest_.remove_prefix(static_cast<std::size_t>(size));
        return result;
    }

    std::uint64_t fixed(unsigned bytes) {
        std::uint64_t result = 0;
        unsigned shift = 0;
        for (char const byte : take(bytes)) {
            result |= std::uint64_t{static_cast<unsigned char>(byte)} << shift;
            shift += 8;
        }
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
        throw wrong();
    }

    std::string_view rest_;
    std::string const& subject_;
};

// Calls `f` for all fields of a message.
template <class F> void for_each_field(std::string_view bytes, std::string const& subject, F const& f) {
    protobuf_fields fields(bytes, subject);
    for (auto field = fields.next(); field.number != 0; field = fields.next()) {
        f(field);
    }
}

inline sentence_piece_file::piece read_piece(std::string_view bytes, std::string const& subject) {
    sentence_piece_file::piece piece;
    for_each_field(bytes, subject, [&](auto const& field) {
        if (field.number == 1) {
            piece.text = field.bytes;
        } else if (field.number == 2) {
            piece.score = std::bit_cast<float>(static_cast<std::uint32_t>(field.integer));
        } else if (field.number == 3) {
            if (field.integer < 1 || field.integer > 6) {
                throw error(subject, "has a token of an unknown type");
            }
            piece.type = static_cast<sentence_piece_file::kind>(field.integer);
        }
    });
    return piece;
}

DETENT_INLINE sentence_piece_file read_sentence_piece(std::string_view bytes, std::string const& subject) {
    sentence_piece_file file;
    auto const trainer = [&](auto const& field) {
        auto const id = static_cast<std::int64_t>(field.integer);
        switch (field.number) {
        case 3: // model_type: 1 Unigram, 2 BPE, 3 words, 4 characters
            if (id != 1 && id != 2) {
                throw error(subject, "is a model of words or characters, neither Unigram nor BPE");
            }
            file.is_unigram = id == 1;
            break;
        case 40:
            file.unknown_id = id;
            break;
        case 41:
            file.begin_id = id;
            break;
        case 42:
            file.end_id = id;
            break;
        case 43:
            file.padding_id = id;
            break;
        default:
            break;
        }
    };
    auto const normalizer = [&](auto const& field) {
        if (field.number == 2) {
            file.charsmap = field.bytes;
        } else if (field.number == 3) {
            file.adds_space = field.integer != 0;
        } else if (field.number == 4) {
            file.removes_spaces = field.integer != 0;
        }
    };
    for_each_field(bytes, subject, [&](auto const& field) {
        if (field.number == 1) {
            file.pieces.push_back(read_piece(field.bytes, subject));
        } else if (field.number == 2) {
            for_each_field(field.bytes, subject, trainer);
        } else if (field.number == 3) {
            for_each_field(field.bytes, subject, normalizer);
        }
    });
    if (file.pieces.empty()) {
        throw error(subject, "has no tokens");
    }
    return file;
}

} // namespace detent::inline DETENT_ABI::text

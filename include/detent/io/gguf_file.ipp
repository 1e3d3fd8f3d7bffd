// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "detent/core/error.hpp"
#include "detent/io/gguf_file.hpp"
#include "detent/io/json.hpp"

namespace detent::inline DETENT_ABI::io {

/// Calls `f.template operator()<T>()` with the type of metadata of that number in files; answers whether there is one.
template <class F, std::size_t... Place>
bool with_gguf_type(std::uint32_t id, F const& f, std::index_sequence<Place...>) {
    auto const matches = [&]<std::size_t P>() {
        if (id == gguf_id_of(P)) {
            f.template operator()<std::variant_alternative_t<P, gguf_value>>();
        }
        return id == gguf_id_of(P);
    };
    return (matches.template operator()<Place>() || ...);
}

/// Reads the header of a GGUF file from its first byte on.
class gguf_file::cursor {
public:
    explicit cursor(mapped_file const& file) : file_(file) {}

    /// Bytes before the next value.
    index_t position() const { return static_cast<index_t>(position_); }

    std::size_t rest() const { return file_.bytes().size() - position_; }

    /// @throws error unless there are `count` things of at least `bytes` bytes each.
    void expect(std::uint64_t count, std::size_t bytes, std::string const& what) const {
        if (count > rest() / bytes) {
            throw error(file_.path().string(), "is truncated or no GGUF file: " + what + " would lie beyond its " +
                                                   std::to_string(file_.bytes().size()) + " bytes");
        }
    }

    /// A number, or a bool of one byte.
    template <class T> T number(std::string const& what) {
        expect(1, sizeof(T), what);
        auto const* const from = file_.bytes().data() + position_;
        position_ += sizeof(T);
        if constexpr (std::is_same_v<T, bool>) {
            if (*from > 1) {
                throw error(file_.path().string() + ", " + what, "is neither true nor false");
            }
            return *from == 1;
        } else {
            T value;
            std::memcpy(&value, from, sizeof value);
            return value;
        }
    }

    std::string text(std::string const& what) {
        auto const length = number<std::uint64_t>(what);
        expect(length, 1, what);
        auto const* const from = reinterpret_cast<char const*>(file_.bytes().data() + position_);
        position_ += static_cast<std::size_t>(length);
        return {from, static_cast<std::size_t>(length)};
    }

    /// A value of metadata but an array.
    template <class T> T value(std::string const& what) {
        if constexpr (std::is_same_v<T, std::string>) {
            return text(what);
        } else {
            return number<T>(what);
        }
    }

    template <class T> std::vector<T> values(std::uint64_t count, std::string const& what) {
        expect(count, std::is_same_v<T, std::string> ? sizeof(std::uint64_t) : sizeof(T), what);
        std::vector<T> result;
        result.reserve(static_cast<std::size_t>(count));
        for (std::uint64_t i = 0; i < count; ++i) {
            result.push_back(value<T>(what));
        }
        return result;
    }

private:
    mapped_file const& file_;
    std::size_t position_ = 0;
};

DETENT_INLINE extents gguf_tensor::matrix_shape() const {
    extents result{1, shape.empty() ? 1 : shape.back()};
    for (std::size_t i = 0; i + 1 < shape.size(); ++i) {
        result.rows *= shape[i];
    }
    return result;
}

DETENT_INLINE gguf_file::gguf_file(std::filesystem::path const& path) : file_(path), metadata_(path.string()) {
    static_assert(std::endian::native == std::endian::little, "the numbers of GGUF files are used in place");
    cursor from(file_);
    std::string_view const start(reinterpret_cast<char const*>(file_.bytes().data()),
                                 std::min<std::size_t>(file_.bytes().size(), 30));
    if (!start.starts_with("GGUF")) {
        throw error(path.string(), start.starts_with("version https://git-lfs")
                                       ? "is a pointer of Git LFS, which stands for the file that is not there"
                                       : "is no GGUF file: it does not begin with 'GGUF'");
    }
    static_cast<void>(from.number<std::uint32_t>("the first word"));
    version_ = from.number<std::uint32_t>("the version");
    if (version_ > 0xFFFF && (version_ & 0xFFFF) == 0) {
        throw error(path.string(), "is a big-endian GGUF file, which is not read");
    }
    if (version_ != 2 && version_ != 3) {
        throw error(path.string(), "is a GGUF file of version " + std::to_string(version_) + "; 2 and 3 are read");
    }
    auto const tensors = from.number<std::uint64_t>("the number of tensors");
    auto const values = from.number<std::uint64_t>("the number of keys");
    read_metadata(from, values);
    std::vector<std::uint64_t> offsets;
    read_tensors(from, tensors, offsets);
    place(from.position(), offsets);
    check_overlaps();
}

DETENT_INLINE void gguf_file::read_metadata(cursor& from, std::uint64_t count) {
    from.expect(count, 8 + 4 + 1, "the metadata"); // a key, a type, a value
    constexpr auto places = std::make_index_sequence<gguf_scalar_types>();
    for (std::uint64_t i = 0; i < count; ++i) {
        std::string key = from.text("key " + std::to_string(i));
        std::string const what = "key '" + printable(key) + "'";
        auto type = from.number<std::uint32_t>(what);
        bool const is_array = type == gguf_array_id;
        gguf_value value;
        if (is_array) {
            type = from.number<std::uint32_t>(what);
        }
        bool const known = with_gguf_type(
            type,
            [&]<class T> {
                if (is_array) {
                    value = from.values<T>(from.number<std::uint64_t>(what), what);
                } else {
                    value = from.value<T>(what);
                }
            },
            places);
        if (!known) {
            throw error(path().string() + ", " + what, type == gguf_array_id
                                                           ? "is an array of arrays, which is not read"
                                                           : "has the unknown type " + std::to_string(type));
        }
        metadata_.add(std::move(key), std::move(value));
    }
}

DETENT_INLINE void gguf_file::read_tensors(cursor& from, std::uint64_t count, std::vector<std::uint64_t>& offsets) {
    from.expect(count, 8 + 4 + 4 + 8, "the list of tensors"); // a name, number of extents, type, offset
    for (std::uint64_t i = 0; i < count; ++i) {
        gguf_tensor tensor;
        tensor.name = from.text("the name of tensor " + std::to_string(i));
        std::string const subject = subject_of(path(), tensor.name);
        std::string const what = "tensor '" + printable(tensor.name) + "'";
        auto const rank = from.number<std::uint32_t>(what);
        if (rank > 4) {
            throw error(subject, "has " + std::to_string(rank) + " extents; the most are 4");
        }
        for (std::uint32_t d = 0; d < rank; ++d) {
            auto const extent = from.number<std::uint64_t>(what);
            if (extent > static_cast<std::uint64_t>(std::numeric_limits<index_t>::max())) {
                throw error(subject, "has an extent beyond 2^63 - 1");
            }
            tensor.shape.insert(tensor.shape.begin(), static_cast<index_t>(extent));
        }
        auto const id = from.number<std::uint32_t>(what);
        tensor.type = find_ggml_type(id);
        if (tensor.type == nullptr) {
            throw error(subject, "has the unknown type " + std::to_string(id));
        }
        offsets.push_back(from.number<std::uint64_t>(what));
        if (!places_.emplace(tensor.name, tensors_.size()).second) {
            throw error(subject, "is there twice");
        }
        tensors_.push_back(std::move(tensor));
    }
}

DETENT_INLINE index_t gguf_file::alignment() const {
    constexpr char const* key = "general.alignment";
    index_t const alignment = metadata_.contains(key) ? metadata_.integer(key) : gguf_alignment;
    if (alignment < 1 || alignment > 1 << 30 || !std::has_single_bit(static_cast<std::uint64_t>(alignment))) {
        throw error(path().string() + ", key '" + key + "'", "is no power of two");
    }
    return alignment;
}

DETENT_INLINE void gguf_file::place(index_t header_end, std::vector<std::uint64_t> const& offsets) {
    index_t const step = alignment();
    index_t const begin = ceil_div(header_end, step) * step;
    auto const all = file_.bytes();
    index_t const size = std::max<index_t>(std::ssize(all) - begin, 0);
    for (std::size_t i = 0; i < tensors_.size(); ++i) {
        auto& tensor = tensors_[i];
        std::string const subject = subject_of(path(), tensor.name);
        index_t const bytes = tensor.type->bytes(tensor.shape, subject);
        if (offsets[i] % static_cast<std::uint64_t>(step) != 0) {
            throw error(subject,
                        "begins at " + std::to_string(offsets[i]) + ", not at a multiple of " + std::to_string(step));
        }
        if (offsets[i] > static_cast<std::uint64_t>(size) || bytes > size - static_cast<index_t>(offsets[i])) {
            throw error(subject, "has " + std::to_string(bytes) + " bytes from " + std::to_string(offsets[i]) +
                                     " on, beyond the " + std::to_string(size) +
                                     " of data: the file is truncated or this is wrong");
        }
        auto const at = static_cast<std::size_t>(begin) + static_cast<std::size_t>(offsets[i]);
        tensor.bytes = bytes == 0 ? all.first(0) : all.subspan(at, static_cast<std::size_t>(bytes));
    }
}

DETENT_INLINE void gguf_file::check_overlaps() const {
    std::vector<gguf_tensor const*> sorted;
    for (auto const& tensor : tensors_) {
        if (!tensor.bytes.empty()) {
            sorted.push_back(&tensor);
        }
    }
    std::ranges::sort(sorted, {}, [](gguf_tensor const* t) { return t->bytes.data(); });
    for (std::size_t i = 1; i < sorted.size(); ++i) {
        if (sorted[i - 1]->bytes.data() + sorted[i - 1]->bytes.size() > sorted[i]->bytes.data()) {
            throw error(subject_of(path(), sorted[i]->name),
                        "shares bytes with tensor '" + printable(sorted[i - 1]->name) + "'");
        }
    }
}

DETENT_INLINE gguf_tensor const& gguf_file::at(std::string_view name) const {
    auto const found = places_.find(name);
    if (found == places_.end()) {
        throw error(subject_of(path(), name), "is missing");
    }
    return tensors_[found->second];
}

DETENT_INLINE tensor_view gguf_file::plain(std::string_view name) const {
    auto const& tensor = at(name);
    if (!tensor.type->plain) {
        throw error(subject_of(path(), name), "has type " + std::string(tensor.type->name) + ", blocks of codes");
    }
    return {*tensor.type->plain, tensor.shape, tensor.bytes};
}

DETENT_INLINE packed_matrix gguf_file::packed(std::string_view name) const {
    return packed_rows(name, 0, at(name).matrix_shape().rows);
}

DETENT_INLINE packed_matrix gguf_file::packed_rows(std::string_view name, index_t first, index_t last) const {
    auto const& tensor = at(name);
    auto const [rows, cols] = tensor.matrix_shape();
    std::string const subject = subject_of(path(), name);
    if (tensor.type->read == nullptr) {
        throw error(subject, "has type " + std::string(tensor.type->name) + ", which is not read as a packed matrix");
    }
    if (first < 0 || first > last || last > rows) {
        throw error(subject, "has " + std::to_string(rows) + " rows, but rows " + std::to_string(first) + " to " +
                                 std::to_string(last) + " were asked for");
    }
    index_t const row_bytes = cols / tensor.type->block_codes * tensor.type->block_bytes;
    try {
        return tensor.type->read(tensor.bytes.data() + first * row_bytes, {last - first, cols});
    } catch (error const& e) {
        throw error(subject, e.what());
    }
}

DETENT_INLINE std::vector<float> gguf_file::floats(std::string_view name) const {
    auto const& tensor = at(name);
    if (tensor.type->plain) {
        return to_floats(plain(name), std::string(name));
    }
    auto const w = packed(name);
    std::vector<float> result(static_cast<std::size_t>(w.shape().size()));
    copy_to_floats(w, 0, w.shape().size() > 0 ? w.shape().rows : 0, result.data());
    return result;
}

} // namespace detent::inline DETENT_ABI::io

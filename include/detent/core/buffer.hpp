// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <span>
#include <utility>

#include "detent/core/index.hpp"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace detent::inline DETENT_ABI {

/// Zeroed bytes aligned to a cache line. Another 64 readable bytes follow the last one, so that a kernel may load a
/// whole vector at the end of the data. Large ones ask the system for large pages: addresses are then found faster, and
/// hardware reads ahead further.
class buffer {
public:
    static constexpr std::size_t alignment = 64;
    static constexpr std::size_t padding = 64;

    buffer() = default;
    explicit buffer(index_t size) : size_(size) {
        auto const bytes = static_cast<std::size_t>(size) + padding;
        std::align_val_t const boundary{bytes >= large_page ? large_page : alignment};
        data_ = {static_cast<std::uint8_t*>(::operator new(bytes, boundary)), release{boundary}};
#if defined(__linux__)
        if (bytes >= large_page) {
            ::madvise(data_.get(), bytes / large_page * large_page, MADV_HUGEPAGE); // a wish
        }
#endif
        std::memset(data_.get(), 0, bytes);
    }
    buffer(buffer const& other) : buffer(other.size_) {
        if (size_ > 0) {
            std::memcpy(data(), other.data(), static_cast<std::size_t>(size_));
        }
    }
    buffer(buffer&& other) noexcept : data_(std::move(other.data_)), size_(std::exchange(other.size_, 0)) {}
    buffer& operator=(buffer other) noexcept {
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
        return *this;
    }
    ~buffer() = default;

    std::uint8_t* data() { return data_.get(); }
    std::uint8_t const* data() const { return data_.get(); }
    index_t size() const { return size_; }
    std::span<std::uint8_t const> bytes() const { return {data_.get(), static_cast<std::size_t>(size_)}; }

    friend bool operator==(buffer const& a, buffer const& b) { return std::ranges::equal(a.bytes(), b.bytes()); }

private:
    static constexpr std::size_t large_page = std::size_t{1} << 21;

    struct release {
        std::align_val_t boundary;
        void operator()(std::uint8_t* p) const { ::operator delete(p, boundary); }
    };
    std::unique_ptr<std::uint8_t, release> data_;
    index_t size_ = 0;
};

} // namespace detent::inline DETENT_ABI

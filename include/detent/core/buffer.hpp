// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>
#include <span>
#include <utility>

#include "detent/core/error.hpp"
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
    /// @throws error when `size` is negative.
    explicit buffer(index_t size) : size_(size) {
        expect_option(size >= 0, "buffer", "size", size, "0 or more");
        std::size_t const all = allocated(size);
        data_ = static_cast<std::uint8_t*>(::operator new(all, boundary(size)));
#if defined(__linux__)
        if (all >= large_page) {
            ::madvise(data_, all / large_page * large_page, MADV_HUGEPAGE); // a wish
        }
#endif
        std::memset(data_, 0, all);
    }
    buffer(buffer const& other) : buffer(other.size_) {
        if (size_ > 0) {
            std::memcpy(data(), other.data(), static_cast<std::size_t>(size_));
        }
    }
    buffer(buffer&& other) noexcept
        : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
    buffer& operator=(buffer other) noexcept {
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
        return *this;
    }
    ~buffer() {
        if (data_ != nullptr) {
            ::operator delete(data_, boundary(size_));
        }
    }

    std::uint8_t* data() { return data_; }
    std::uint8_t const* data() const { return data_; }
    index_t size() const { return size_; }
    std::span<std::uint8_t const> bytes() const { return {data_, static_cast<std::size_t>(size_)}; }

    friend bool operator==(buffer const& a, buffer const& b) {
        return a.size_ == b.size_ &&
               (a.size_ == 0 || std::memcmp(a.data_, b.data_, static_cast<std::size_t>(a.size_)) == 0);
    }

private:
    static constexpr std::size_t large_page = std::size_t{1} << 21;

    /// The bytes that a buffer of `size` takes, and where they begin.
    static std::size_t allocated(index_t size) { return static_cast<std::size_t>(size) + padding; }
    static std::align_val_t boundary(index_t size) {
        return std::align_val_t{allocated(size) >= large_page ? large_page : alignment};
    }

    std::uint8_t* data_ = nullptr; // not a std::unique_ptr: <memory> is large
    index_t size_ = 0;
};

} // namespace detent::inline DETENT_ABI

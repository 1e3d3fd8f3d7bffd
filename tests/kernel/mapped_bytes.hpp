// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include <sys/mman.h>
#include <unistd.h>

namespace detent::test {

/// A copy of bytes that ends where a page begins which cannot be read.
class mapped_bytes {
public:
    mapped_bytes(void const* from, std::size_t n) {
        auto const page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
        readable_ = (n + page - 1) / page * page + page;
        memory_ = static_cast<std::uint8_t*>(
            mmap(nullptr, readable_ + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        all_ = readable_ + page;
        mprotect(memory_ + readable_, page, PROT_NONE);
        begin_ = memory_ + readable_ - n;
        std::copy_n(static_cast<std::uint8_t const*>(from), n, begin_);
    }
    mapped_bytes(mapped_bytes const&) = delete;
    mapped_bytes& operator=(mapped_bytes const&) = delete;
    ~mapped_bytes() { munmap(memory_, all_); }

    std::uint8_t const* data() const { return begin_; }

private:
    std::uint8_t* memory_;
    std::uint8_t* begin_;
    std::size_t readable_;
    std::size_t all_;
};

} // namespace detent::test

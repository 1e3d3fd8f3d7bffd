// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <new>

#include "detent/core/index.hpp"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace detent::compiled {

/// A piece of memory that a workspace holds; `size` bytes follow it, 64 bytes after its begin.
struct memory_chunk {
    memory_chunk* next;
    std::int64_t size;
};

/// What a workspace holds and how much of it is in use. Nothing here depends on compile flags, so that the target
/// detent::kernels takes memory from the workspace of its caller.
struct memory {
    memory_chunk* first = nullptr;
    memory_chunk* current = nullptr; ///< the chunk that memory is taken from; null before the first
    std::int64_t used = 0;           ///< bytes of that chunk
};

} // namespace detent::compiled

namespace detent::inline DETENT_ABI {

/// Memory that products use while they run: it grows when a product first needs more, is used again by the next one,
/// and is given back when the workspace is destroyed. What a call needs depends on shapes and formats only, so that a
/// call like an earlier one allocates nothing. Hand it to products by `executor_ref::with_memory`. It serves one call
/// at a time: products that run at once, also those inside of an executor's loop, each need their own.
class workspace {
public:
    workspace() = default;
    workspace(workspace const&) = delete;
    workspace& operator=(workspace const&) = delete;
    ~workspace() {
        while (held_.first != nullptr) {
            compiled::memory_chunk* const chunk = held_.first;
            held_.first = chunk->next;
            ::operator delete(chunk, boundary(header + chunk->size));
        }
    }

    /// The bytes that it holds.
    index_t size() const {
        index_t sum = 0;
        for (compiled::memory_chunk const* c = held_.first; c != nullptr; c = c->next) {
            sum += header + c->size;
        }
        return sum;
    }

private:
    friend class executor_ref;
    friend class scratch;

    static constexpr index_t header = 64; // of a chunk, which keeps what follows aligned to cache lines
    static constexpr index_t smallest = index_t{1} << 16;
    static constexpr index_t large_page = index_t{1} << 21;

    static std::align_val_t boundary(index_t bytes) {
        return std::align_val_t{static_cast<std::size_t>(bytes >= large_page ? large_page : header)};
    }

    static compiled::memory_chunk* allocate(index_t bytes) {
        index_t const all = std::max(bytes + header, smallest);
        void* const memory = ::operator new(static_cast<std::size_t>(all), boundary(all));
#if defined(__linux__)
        if (all >= large_page) {
            ::madvise(memory, static_cast<std::size_t>(all / large_page * large_page), MADV_HUGEPAGE); // a wish
        }
#endif
        return new (memory) compiled::memory_chunk{nullptr, all - header};
    }

    /// `bytes` more of the memory, aligned to a cache line; what was taken before stays where it is.
    static std::uint8_t* take(compiled::memory& from, index_t bytes) {
        bytes = ceil_div(bytes, header) * header;
        compiled::memory_chunk** next = from.current != nullptr ? &from.current->next : &from.first;
        if (from.current == nullptr || from.current->size - from.used < bytes) {
            while (*next != nullptr && (*next)->size < bytes) { // chunks too small stay as they are until a release
                next = &(*next)->next;
            }
            if (*next == nullptr) {
                *next = allocate(bytes);
            }
            from.current = *next;
            from.used = 0;
        }
        std::uint8_t* const taken = reinterpret_cast<std::uint8_t*>(from.current) + header + from.used;
        from.used += bytes;
        return taken;
    }

    compiled::memory held_;
};

} // namespace detent::inline DETENT_ABI

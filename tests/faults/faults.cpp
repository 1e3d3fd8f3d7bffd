// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <new>

#include <dlfcn.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#include "faults.hpp"

namespace detent::test {
namespace {

std::atomic<bool> armed{false};
fault_call armed_call = fault_call::write;
fault_kind armed_kind = fault_kind::fails;
long armed_at = 0;
std::atomic<long> count{0};

/// Whether this call is the one; ends the process where that is the fault.
bool hit(fault_call call) {
    if (!armed || call != armed_call || ++count != armed_at) {
        return false;
    }
    if (armed_kind == fault_kind::ends) {
        std::_Exit(ended_status);
    }
    return true;
}

template <class F> F* real(char const* name) { return reinterpret_cast<F*>(::dlsym(RTLD_NEXT, name)); }

/// Calls the real function, or fails with `problem`, before or after it.
template <class F, class... Args> auto call(fault_call kind, char const* name, int problem, Args... args) {
    auto* const function = real<F>(name);
    bool const fails = hit(kind);
    if (!fails || armed_kind == fault_kind::cut) {
        auto const answer = function(args...);
        if (!fails || answer < 0) {
            return answer;
        }
    }
    errno = problem;
    return decltype(function(args...))(-1);
}

} // namespace

void arm(fault_call at, long n, fault_kind kind) {
    armed_call = at;
    armed_at = n;
    armed_kind = kind;
    count = 0;
    armed = true;
}

long disarm() {
    armed = false;
    return count;
}

} // namespace detent::test

using detent::test::call;
using detent::test::fault_call;

// The names of the C library, which the linker finds here first.
extern "C" {

ssize_t write(int file, void const* bytes, std::size_t size) {
    using detent::test::fault_kind;
    auto* const function = detent::test::real<ssize_t(int, void const*, std::size_t)>("write");
    if (!detent::test::hit(fault_call::write)) {
        return function(file, bytes, size);
    }
    if (detent::test::armed_kind == fault_kind::cut) { // a disk that is full in between
        static_cast<void>(function(file, bytes, size / 2));
    }
    errno = ENOSPC;
    return -1;
}

int open(char const* path, int flags, ...) {
    mode_t mode = 0;
    if ((flags & (O_CREAT | O_TMPFILE)) != 0) {
        va_list list;
        va_start(list, flags);
        mode = va_arg(list, mode_t);
        va_end(list);
    }
    auto* const function = detent::test::real<int(char const*, int, ...)>("open");
    if ((flags & O_ACCMODE) != O_RDONLY && detent::test::hit(fault_call::open)) {
        errno = EACCES;
        return -1;
    }
    return function(path, flags, mode);
}

ssize_t sendfile(int out, int in, off_t* offset, std::size_t size) { // how the standard library copies files
    return call<ssize_t(int, int, off_t*, std::size_t)>(fault_call::write, "sendfile", ENOSPC, out, in, offset, size);
}
ssize_t copy_file_range(int in, off_t* in_at, int out, off_t* out_at, std::size_t size, unsigned flags) {
    return call<ssize_t(int, off_t*, int, off_t*, std::size_t, unsigned)>(fault_call::write, "copy_file_range", ENOSPC,
                                                                          in, in_at, out, out_at, size, flags);
}
int ftruncate(int file, off_t size) noexcept {
    return call<int(int, off_t)>(fault_call::write, "ftruncate", ENOSPC, file, size);
}
int fsync(int file) { return call<int(int)>(fault_call::sync, "fsync", EIO, file); }
int fdatasync(int file) { return call<int(int)>(fault_call::sync, "fdatasync", EIO, file); }
int rename(char const* from, char const* to) noexcept {
    return call<int(char const*, char const*)>(fault_call::name, "rename", EIO, from, to);
}
int renameat(int from_in, char const* from, int to_in, char const* to) noexcept {
    return call<int(int, char const*, int, char const*)>(fault_call::name, "renameat", EIO, from_in, from, to_in, to);
}
int renameat2(int from_in, char const* from, int to_in, char const* to, unsigned flags) noexcept {
    return call<int(int, char const*, int, char const*, unsigned)>(fault_call::name, "renameat2", EIO, from_in, from,
                                                                   to_in, to, flags);
}
int link(char const* from, char const* to) noexcept {
    return call<int(char const*, char const*)>(fault_call::name, "link", EIO, from, to);
}
int linkat(int from_in, char const* from, int to_in, char const* to, int flags) noexcept {
    return call<int(int, char const*, int, char const*, int)>(fault_call::name, "linkat", EIO, from_in, from, to_in, to,
                                                              flags);
}
int close(int file) { return call<int(int)>(fault_call::close, "close", EIO, file); }
int mkdir(char const* path, mode_t mode) noexcept {
    return call<int(char const*, mode_t)>(fault_call::directory, "mkdir", ENOSPC, path, mode);
}

} // extern "C"

// Memory: the allocator of the language, through which containers and matrices' owners go.

void* operator new(std::size_t size) {
    void* const memory = detent::test::hit(fault_call::allocate) ? nullptr : std::malloc(size > 0 ? size : 1);
    return memory != nullptr ? memory : throw std::bad_alloc();
}
void* operator new(std::size_t size, std::align_val_t boundary) {
    auto const at = static_cast<std::size_t>(boundary);
    void* const memory =
        detent::test::hit(fault_call::allocate) ? nullptr : std::aligned_alloc(at, (size + at - 1) / at * at + at);
    return memory != nullptr ? memory : throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }

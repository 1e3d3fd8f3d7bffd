// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <stdexcept>
#include <string>

#include "detent/core/abi.hpp"

namespace detent::inline DETENT_ABI {

/// What a caller gave is wrong: a file, a tensor, a specification, an option, a shape. The message starts with the
/// thing it is about.
class error : public std::runtime_error {
public:
    error(std::string subject, std::string const& problem)
        : std::runtime_error(subject + ": " + problem), subject_(std::move(subject)) {}

    /// The file, tensor, layer or field that is wrong.
    std::string const& subject() const noexcept { return subject_; }

private:
    std::string subject_;
};

/// Thrown when a progress callback asked to stop. Nothing has been written.
class cancelled : public std::runtime_error {
public:
    cancelled() : std::runtime_error("cancelled") {}
};

#if !defined(__cpp_exceptions)
/// Takes what would be thrown in a program that is compiled without exceptions, with its message in `what()`; the object
/// is an `error` or `cancelled`. It is called on the thread that met the error, which may be one of an executor, and
/// does not return: it ends the program. The program aborts if it does return.
using error_handler = void (*)(std::exception const&);

/// The error handler of a program without exceptions, for the program to set before it calls anything else, as in
/// `on_error() = [](std::exception const& e) { ... }`. The one that is there prints the message, whereupon the program
/// aborts. Setting it while other threads work is a race.
inline error_handler& on_error() noexcept {
    static error_handler handler = [](std::exception const& e) { std::fprintf(stderr, "detent: %s\n", e.what()); };
    return handler;
}
#endif

/// Throws `problem`, or without exceptions hands it to `on_error()`; aborts if that returns.
template <class Problem> [[noreturn]] void raise(Problem const& problem) {
#if defined(__cpp_exceptions)
    throw problem;
#else
    on_error()(problem);
    std::abort();
#endif
}

// Errors of checks are raised out of line: the code for their messages is in the way of what is checked, and g++ 12
// takes moves of strings that a condition rules out for writes out of bounds.

/// Raises the error `problem` about `subject`.
[[noreturn, gnu::noinline, gnu::cold]] inline void raise_invalid(char const* subject, char const* problem) {
    raise(error(subject, problem));
}

/// Raises the error that the option `name` of `subject` has that value.
template <class Value>
[[noreturn, gnu::noinline, gnu::cold]] void raise_option(char const* subject, char const* name, Value value,
                                                         char const* wanted) {
    raise(error(subject, "its " + std::string(name) + " is " + std::to_string(value) + ", not " + wanted));
}

/// Checks what a caller gave, once per call and in release builds too. @throws error unless it is `valid`.
constexpr void expect_valid(bool valid, char const* subject, char const* problem) {
    if (!valid) {
        raise_invalid(subject, problem);
    }
}

/// Checks an option that a caller gave. @throws error that says its `name` and value, and what it would have to be.
template <class Value>
constexpr void expect_option(bool valid, char const* subject, char const* name, Value value, char const* wanted) {
    if (!valid) {
        raise_option(subject, name, value, wanted);
    }
}

} // namespace detent::inline DETENT_ABI

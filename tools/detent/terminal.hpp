// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <string>
#include <vector>

#include "detent/core/progress.hpp"

/// Prints how far a job is, with the time left, on one line of a terminal; on anything else it prints nothing. It asks
/// the job to stop after Ctrl-C, and when the terminal goes away or the system asks the program to end.
class progress_bar {
public:
    progress_bar();
    ~progress_bar();
    progress_bar(progress_bar const&) = delete;
    progress_bar& operator=(progress_bar const&) = delete;

    /// For a job called `title`.
    detent::progress callback(std::string title);

private:
    void clear();

    bool shown_;
    std::size_t width_ = 0; // of what stands on the line
};

/// A table for people: columns as wide as they need to be, the first to the left, the others to the right.
class table {
public:
    explicit table(std::vector<std::string> head) : rows_{std::move(head)} {}
    void add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }
    void print() const;
    /// With all columns to the left.
    void print_left() const;

private:
    void print(bool left) const;

    std::vector<std::vector<std::string>> rows_;
};

/// The signal that asked the program to end; Ctrl-C's if there was none.
int ending_signal();

/// The version of the library.
std::string version_text();

/// `value` with `digits` after the point.
std::string fixed(double value, int digits);

/// Seconds in the unit that suits them.
std::string duration_text(double seconds);

/// Bytes as megabytes, or as gigabytes from 10 of these on, with the unit.
std::string size_text(double bytes);

// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "terminal.hpp"

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <iostream>
#include <utility>

#include <unistd.h>

namespace {

volatile std::sig_atomic_t interrupted = 0;

// The second Ctrl-C ends the program at once.
extern "C" void on_interrupt(int signal) {
    interrupted = 1;
    std::signal(signal, SIG_DFL);
}

} // namespace

std::string fixed(double value, int digits) {
    char text[64];
    std::snprintf(text, sizeof text, "%.*f", digits, value);
    return text;
}

progress_bar::progress_bar() : shown_(isatty(STDERR_FILENO) != 0) { std::signal(SIGINT, on_interrupt); }

progress_bar::~progress_bar() {
    clear();
    std::signal(SIGINT, SIG_DFL);
}

void progress_bar::clear() {
    if (width_ > 0) {
        std::cerr << '\r' << std::string(width_, ' ') << '\r' << std::flush;
        width_ = 0;
    }
}

detent::progress progress_bar::callback(std::string title) {
    using clock = std::chrono::steady_clock;
    return [this, title = std::move(title), start = clock::now(), step = std::string()](std::string_view what,
                                                                                        double fraction) mutable {
        if (interrupted != 0) {
            return false;
        }
        if (what != step) { // another part of the job begins
            step = what;
            start = clock::now();
        }
        if (shown_) {
            double const elapsed = std::chrono::duration<double>(clock::now() - start).count();
            std::string line = title + ": " + step + " [";
            for (int i = 0; i < 30; ++i) {
                line += i < static_cast<int>(30 * fraction) ? '#' : '.';
            }
            line += "] " + fixed(100 * fraction, 0) + " %";
            if (fraction > 0.02) {
                line += ", " + fixed(elapsed * (1 - fraction) / fraction, 0) + " s left";
            }
            std::size_t const width = std::max(width_, line.size());
            std::cerr << '\r' << line << std::string(width - line.size(), ' ') << std::flush;
            width_ = line.size();
            if (fraction >= 1) {
                clear();
            }
        }
        return true;
    };
}

void table::print() const {
    std::vector<std::size_t> widths(rows_.front().size());
    for (auto const& row : rows_) {
        for (std::size_t i = 0; i < row.size(); ++i) {
            widths[i] = std::max(widths[i], row[i].size());
        }
    }
    for (auto const& row : rows_) {
        std::string line;
        for (std::size_t i = 0; i < row.size(); ++i) {
            std::string const space(widths[i] - row[i].size(), ' ');
            line += i == 0 ? row[i] + space : "  " + space + row[i];
        }
        std::cout << line << '\n';
    }
    std::cout << std::flush;
}

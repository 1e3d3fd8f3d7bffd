// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <iostream>
#include <utility>

#include <unistd.h>

#include "detent/core/version.hpp"
#include "terminal.hpp"

namespace {

constexpr int ending_signals[] = {SIGINT, SIGTERM, SIGHUP};
volatile std::sig_atomic_t interrupted = 0; // by which signal

// The second one ends the program at once.
extern "C" void on_interrupt(int signal) {
    interrupted = signal;
    std::signal(signal, SIG_DFL);
}

} // namespace

int ending_signal() { return interrupted != 0 ? interrupted : SIGINT; }

std::string version_text() {
    return std::to_string(DETENT_VERSION_MAJOR) + "." + std::to_string(DETENT_VERSION_MINOR) + "." +
           std::to_string(DETENT_VERSION_PATCH);
}

std::string duration_text(double seconds) {
    return seconds < 120    ? fixed(seconds, 0) + " s"
           : seconds < 7200 ? fixed(seconds / 60, 0) + " minutes"
                            : fixed(seconds / 3600, 0) + " hours";
}

std::string size_text(double bytes) {
    return bytes < 1e10 ? fixed(bytes / 1e6, 2) + " MB" : fixed(bytes / 1e9, 2) + " GB";
}

std::string fixed(double value, int digits) {
    char text[64];
    std::snprintf(text, sizeof text, "%.*f", digits, value);
    return text;
}

progress_bar::progress_bar() : shown_(isatty(STDERR_FILENO) != 0) {
    for (int const signal : ending_signals) {
        if (std::signal(signal, on_interrupt) == SIG_IGN) { // as under nohup
            std::signal(signal, SIG_IGN);
        }
    }
}

progress_bar::~progress_bar() {
    clear();
    for (int const signal : ending_signals) {
        if (std::signal(signal, SIG_DFL) == SIG_IGN) {
            std::signal(signal, SIG_IGN);
        }
    }
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

void table::print() const { print(false); }

void table::print_left() const { print(true); }

void table::print(bool left) const {
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
            line += i == 0 ? row[i] + space : left ? "  " + row[i] + space : "  " + space + row[i];
        }
        line.erase(line.find_last_not_of(' ') + 1);
        std::cout << line << '\n';
    }
    std::cout << std::flush;
}

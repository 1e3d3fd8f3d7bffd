// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <array>
#include <string_view>

// Makes calls of the system and allocations of this program fail, or end the process, at the n-th time of a kind. The
// program that links faults.cpp has its calls go through there, whoever makes them.

namespace detent::test {

/// Calls that can fail, or be the last.
enum class fault_call { allocate, open, write, sync, name, close, directory };
inline constexpr std::array<std::string_view, 7> fault_calls{"allocation", "open",  "write",    "sync",
                                                             "name",       "close", "directory"};

/// What happens at the call.
enum class fault_kind {
    fails, ///< with an error: no memory, a full disk, a broken one
    cut,   ///< a write writes half and fails then, other calls are done and fail then
    ends   ///< the process ends before the call, as by SIGKILL
};

/// What a process that was ended answers.
inline constexpr int ended_status = 77;

/// From now on the `n`-th call of a kind, counted from 1, has this fault; 0 for none. Counts begin anew.
void arm(fault_call at, long n, fault_kind kind);

/// No more faults; answers how many calls of the kind there were.
long disarm();

} // namespace detent::test

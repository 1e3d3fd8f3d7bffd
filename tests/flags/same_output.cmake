# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

# cmake -D program=<file> -D plain=<file> -P same_output.cmake: both print the same, and errors were raised.

execute_process(COMMAND ${plain} OUTPUT_VARIABLE expected RESULT_VARIABLE failure_of_plain)
execute_process(COMMAND ${program} OUTPUT_VARIABLE output RESULT_VARIABLE failure)
if(failure OR failure_of_plain)
    message(FATAL_ERROR "one does not run: ${failure} ${failure_of_plain}")
endif()
if(NOT output STREQUAL expected)
    message(FATAL_ERROR "expected\n${expected}\nbut it printed\n${output}")
endif()
if(output MATCHES "NOTHING WAS RAISED")
    message(FATAL_ERROR "not every error was raised\n${output}")
endif()

# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

# cmake -D source=<file> -P compile_twice.cmake -- <compiler> <flags>...

set(command "")
set(after_dashes FALSE)
math(EXPR last "${CMAKE_ARGC} - 1")
foreach(i RANGE ${last})
    if(after_dashes)
        list(APPEND command "${CMAKE_ARGV${i}}")
    elseif("${CMAKE_ARGV${i}}" STREQUAL "--")
        set(after_dashes TRUE)
    endif()
endforeach()

file(STRINGS ${source} expected REGEX "^// expect: .+")
if(NOT expected MATCHES "^// expect: ([^;]+)$")
    message(FATAL_ERROR "${source}: needs one line `// expect: <regular expression>`")
endif()
set(expected "${CMAKE_MATCH_1}")

execute_process(COMMAND ${command} ${source} RESULT_VARIABLE result ERROR_VARIABLE messages)
if(NOT result EQUAL 0)
    message(FATAL_ERROR "${source}: must compile without SLIP\n${messages}")
endif()

execute_process(COMMAND ${command} -DSLIP ${source} RESULT_VARIABLE result ERROR_VARIABLE messages)
if(result EQUAL 0)
    message(FATAL_ERROR "${source}: must not compile with SLIP")
endif()
if(NOT messages MATCHES "${expected}")
    message(FATAL_ERROR "${source}: with SLIP, the messages do not match `${expected}`\n${messages}")
endif()

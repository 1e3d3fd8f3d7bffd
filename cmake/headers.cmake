# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

# The target verify_headers compiles every header alone. With detent::compiled, which compiles their definitions once,
# headers are only declarations.
find_package(Python3 COMPONENTS Interpreter REQUIRED)
separate_arguments(flags NATIVE_COMMAND "${CMAKE_CXX_FLAGS} ${CMAKE_CXX20_STANDARD_COMPILE_OPTION}")
if(CMAKE_COMPILE_WARNING_AS_ERROR)
    list(APPEND flags -Werror)
endif()
if(TARGET detent_compiled)
    list(APPEND flags -DDETENT_COMPILED)
endif()
# Where other libraries are, whose warnings are not ours; the compiler's own directory must not be named.
set(others "$<REMOVE_DUPLICATES:$<TARGET_PROPERTY:detent_model,INTERFACE_INCLUDE_DIRECTORIES>>")
set(others "$<FILTER:${others},EXCLUDE,^(${CMAKE_CURRENT_SOURCE_DIR}/include|/usr/include|)$>")
set(stamp ${CMAKE_CURRENT_BINARY_DIR}/headers_verified)
add_custom_command(OUTPUT ${stamp} VERBATIM COMMAND_EXPAND_LISTS
    COMMAND Python3::Interpreter ${CMAKE_CURRENT_SOURCE_DIR}/tools/check_headers.py --stamp ${stamp}
        -- ${CMAKE_CXX_COMPILER} ${flags}
        "$<$<BOOL:${others}>:-isystem;$<JOIN:${others},;-isystem;>>"
    DEPENDS ${headers} ${model_headers} ${definitions} ${model_definitions} tools/check_headers.py)
add_custom_target(verify_headers DEPENDS ${stamp})

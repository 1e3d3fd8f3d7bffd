# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

# Every dependency is looked for on the system first and fetched at a pinned commit second. To fetch one that is
# installed, set CMAKE_DISABLE_FIND_PACKAGE_<name>=ON; to build offline, set FETCHCONTENT_SOURCE_DIR_<NAME>.

include(FetchContent)

set(detent_eigen_minimum 3.4)
set(detent_xsimd_minimum 8.1)

# Stops when the version found is too old. The version is no argument of find_package, because the version files of
# Eigen and xsimd accept one major version only.
function(detent_check_version package minimum)
    if(${package}_VERSION VERSION_LESS minimum)
        message(FATAL_ERROR "detent needs ${package} ${minimum} or newer, found ${${package}_VERSION} in ${${package}_DIR}: "
            "set ${package}_DIR to a newer one, or CMAKE_DISABLE_FIND_PACKAGE_${package}=ON to fetch one")
    endif()
endfunction()

# Fetches a header-only library and gives it the target that its own package would define. Its build files are not
# read, so nothing of it is built, tested or installed.
function(detent_fetch_headers name target include_dir repository commit)
    FetchContent_Declare(${name} GIT_REPOSITORY ${repository} GIT_TAG ${commit} SOURCE_SUBDIR only-headers)
    FetchContent_MakeAvailable(${name})
    add_library(${target} INTERFACE IMPORTED GLOBAL)
    target_include_directories(${target} INTERFACE ${${name}_SOURCE_DIR}/${include_dir})
    # A nested build can use the same sources.
    string(TOUPPER ${name} upper_name)
    set_property(GLOBAL APPEND PROPERTY detent_fetched -DFETCHCONTENT_SOURCE_DIR_${upper_name}=${${name}_SOURCE_DIR})
endfunction()

if(NOT TARGET Eigen3::Eigen)
    find_package(Eigen3 CONFIG QUIET)
    if(Eigen3_FOUND)
        detent_check_version(Eigen3 ${detent_eigen_minimum})
    else()
        detent_fetch_headers(eigen Eigen3::Eigen . https://gitlab.com/libeigen/eigen.git
            3147391d946bb4b6c68edd901f2add6ac1f31f8c) # 3.4.0
    endif()
endif()

if(NOT TARGET xsimd)
    find_package(xsimd CONFIG QUIET)
    if(xsimd_FOUND)
        detent_check_version(xsimd ${detent_xsimd_minimum})
    else()
        detent_fetch_headers(xsimd xsimd include https://github.com/xtensor-stack/xsimd.git
            1f8dd9c8e162968d9b4ff0251c56d431b8777f36) # 13.2.0
    endif()
endif()
include(${CMAKE_CURRENT_LIST_DIR}/detentXsimd.cmake)

set(THREADS_PREFER_PTHREAD_FLAG ON)
find_package(Threads REQUIRED)

if(DETENT_MODEL)
    if(NOT TARGET nlohmann_json::nlohmann_json)
        find_package(nlohmann_json 3.10 CONFIG QUIET)
        if(NOT nlohmann_json_FOUND)
            detent_fetch_headers(nlohmann_json nlohmann_json::nlohmann_json single_include
                https://github.com/nlohmann/json.git 9cca280a4d0ccf0c08f47a99aa71d1b0e52f8d03) # 3.11.3
        endif()
    endif()
    include(${CMAKE_CURRENT_LIST_DIR}/detentText.cmake)
endif()

# The three below are for this project's own programs; the directories that need them call these.

macro(detent_need_cli11)
    find_package(CLI11 CONFIG QUIET)
    if(NOT CLI11_FOUND AND NOT TARGET CLI11::CLI11)
        detent_fetch_headers(cli11 CLI11::CLI11 include https://github.com/CLIUtils/CLI11.git
            6c7b07a878ad834957b98d0f9ce1dbe0cb204fc9) # 2.4.2
    endif()
endmacro()

# Builds a fetched library without our warnings as errors, and leaves it out of our install rules.
function(detent_fetch_library name repository commit)
    FetchContent_Declare(${name} GIT_REPOSITORY ${repository} GIT_TAG ${commit})
    set(CMAKE_COMPILE_WARNING_AS_ERROR OFF)
    set(CMAKE_POLICY_DEFAULT_CMP0077 NEW)
    foreach(option IN ITEMS INSTALL_GTEST BUILD_GMOCK BENCHMARK_ENABLE_TESTING BENCHMARK_ENABLE_INSTALL
                            BENCHMARK_INSTALL_DOCS)
        set(${option} OFF)
    endforeach()
    FetchContent_MakeAvailable(${name})
endfunction()

macro(detent_need_gtest)
    find_package(GTest CONFIG QUIET)
    if(NOT GTest_FOUND AND NOT TARGET GTest::gtest_main)
        detent_fetch_library(googletest https://github.com/google/googletest.git
            f8d7d77c06936315286eb55f8de22cd23c188571) # 1.14.0
    endif()
endmacro()

macro(detent_need_benchmark)
    find_package(benchmark CONFIG QUIET)
    if(NOT benchmark_FOUND AND NOT TARGET benchmark::benchmark)
        detent_fetch_library(benchmark https://github.com/google/benchmark.git
            344117638c8ff7e239044fd0fa7085839fc03021) # 1.8.3
    endif()
endmacro()

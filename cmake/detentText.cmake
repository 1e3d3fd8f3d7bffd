# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

# The libraries that tokenizers need, where they are installed: targets detent_unicode, of PCRE2 (10.40 or newer) and
# utf8proc, and detent_sentencepiece. Without them what needs them is an error when the program runs.

find_path(detent_pcre2_include pcre2.h)
find_library(detent_pcre2_library pcre2-8)
find_path(detent_utf8proc_include utf8proc.h)
find_library(detent_utf8proc_library utf8proc)
find_path(detent_sentencepiece_include sentencepiece_processor.h)
find_library(detent_sentencepiece_library sentencepiece)
mark_as_advanced(detent_pcre2_include detent_pcre2_library detent_utf8proc_include detent_utf8proc_library
    detent_sentencepiece_include detent_sentencepiece_library)

if(detent_pcre2_include AND detent_pcre2_library AND detent_utf8proc_include AND detent_utf8proc_library
        AND NOT TARGET detent_unicode)
    file(STRINGS ${detent_pcre2_include}/pcre2.h detent_pcre2_version REGEX "#define PCRE2_(MAJOR|MINOR) ")
    list(TRANSFORM detent_pcre2_version REPLACE ".* " "")
    list(JOIN detent_pcre2_version "." detent_pcre2_version)
    if(detent_pcre2_version VERSION_GREATER_EQUAL 10.40) # the first that knows properties such as White_Space
        add_library(detent_unicode INTERFACE IMPORTED GLOBAL)
        target_compile_definitions(detent_unicode INTERFACE DETENT_UNICODE)
        target_include_directories(detent_unicode INTERFACE ${detent_pcre2_include} ${detent_utf8proc_include})
        target_link_libraries(detent_unicode INTERFACE ${detent_pcre2_library} ${detent_utf8proc_library})
    endif()
    unset(detent_pcre2_version)
endif()

if(detent_sentencepiece_include AND detent_sentencepiece_library AND NOT TARGET detent_sentencepiece)
    add_library(detent_sentencepiece INTERFACE IMPORTED GLOBAL)
    target_compile_definitions(detent_sentencepiece INTERFACE DETENT_SENTENCEPIECE)
    target_include_directories(detent_sentencepiece INTERFACE ${detent_sentencepiece_include})
    target_link_libraries(detent_sentencepiece INTERFACE ${detent_sentencepiece_library})
endif()

# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

# The xsimd 8.1 of Debian 12 links xtl, which it neither uses nor brings.
get_target_property(detent_xsimd_links xsimd INTERFACE_LINK_LIBRARIES)
if(detent_xsimd_links STREQUAL "xtl" AND NOT TARGET xtl)
    set_target_properties(xsimd PROPERTIES INTERFACE_LINK_LIBRARIES "")
endif()
unset(detent_xsimd_links)

# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

set(package_dir ${CMAKE_INSTALL_DATADIR}/cmake/detent)

install(TARGETS detent EXPORT detentTargets FILE_SET HEADERS FILE_SET definitions)
install(EXPORT detentTargets NAMESPACE detent:: DESTINATION ${package_dir})

# A component of its own: who does not ask for it needs no JSON library.
if(DETENT_MODEL)
    install(TARGETS detent_model EXPORT detent_modelTargets FILE_SET HEADERS FILE_SET definitions)
    install(EXPORT detent_modelTargets NAMESPACE detent:: DESTINATION ${package_dir})
endif()

# Compiled, so of one architecture.
if(DETENT_KERNELS)
    install(TARGETS detent_kernels EXPORT detent_kernelsTargets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
    install(EXPORT detent_kernelsTargets NAMESPACE detent:: DESTINATION ${package_dir})
endif()

if(DETENT_COMPILED)
    install(TARGETS detent_compiled EXPORT detent_compiledTargets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
    install(EXPORT detent_compiledTargets NAMESPACE detent:: DESTINATION ${package_dir})
endif()

if(DETENT_BUILD_PROGRAM)
    install(TARGETS detent_program)
endif()

configure_package_config_file(cmake/detentConfig.cmake.in detentConfig.cmake INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(detentConfigVersion.cmake COMPATIBILITY SameMinorVersion ARCH_INDEPENDENT)
install(FILES ${PROJECT_BINARY_DIR}/detentConfig.cmake ${PROJECT_BINARY_DIR}/detentConfigVersion.cmake
    cmake/detentXsimd.cmake cmake/detentText.cmake DESTINATION ${package_dir})

# For builds without CMake; of the headers alone, which are the same everywhere. It finds them from where it lies.
if(IS_ABSOLUTE ${CMAKE_INSTALL_INCLUDEDIR})
    set(PKG_INCLUDE_DIR ${CMAKE_INSTALL_INCLUDEDIR})
else()
    set(PKG_INCLUDE_DIR "\${prefix}/${CMAKE_INSTALL_INCLUDEDIR}")
endif()
configure_file(cmake/detent.pc.in detent.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/detent.pc DESTINATION ${CMAKE_INSTALL_DATADIR}/pkgconfig)

install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})

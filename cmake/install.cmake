# What `cmake --install` puts where, and the packages that CPack makes of it: a tarball that runs from any folder, with the
# libraries that a bare machine lacks, and a Debian package, which names them instead.
include(CMakePackageConfigHelpers)
set(LIBRAY_LIBDIR lib)  # not the multiarch folder: bin/rayd and lib/libray.so find each other by ../

# Programs and library also find the libraries that the tarball brings, and those find each other.
foreach(target ray rayd libray libray-worker libray-relay)
  set(path "$ORIGIN/../${LIBRAY_LIBDIR}")
  if(target STREQUAL ray)
    set(path "$ORIGIN")
  endif()
  set_target_properties(${target} PROPERTIES INSTALL_RPATH "${path}")
  target_link_options(${target} PRIVATE -Wl,--disable-new-dtags)
endforeach()

install(TARGETS rayd libray libray-worker libray-relay RUNTIME_DEPENDENCY_SET libray_needs
  RUNTIME DESTINATION bin COMPONENT runtime)
install(TARGETS ray EXPORT rayTargets RUNTIME_DEPENDENCY_SET libray_needs
  LIBRARY DESTINATION ${LIBRAY_LIBDIR} COMPONENT runtime NAMELINK_COMPONENT development
  INCLUDES DESTINATION include)
install(RUNTIME_DEPENDENCY_SET libray_needs
  PRE_EXCLUDE_REGEXES "^lib(c|m|dl|rt|pthread|gcc_s|stdc\\+\\+)\\.so" "^ld-linux" "^libray\\.so"
  LIBRARY DESTINATION ${LIBRAY_LIBDIR} COMPONENT bundle EXCLUDE_FROM_ALL)

install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/ DESTINATION include COMPONENT development
  FILES_MATCHING PATTERN "*.h" PATTERN "*.hpp")
install(FILES ${PROJECT_SOURCE_DIR}/LICENSE DESTINATION share/doc/libray COMPONENT runtime RENAME copyright)

# find_package(ray): the target ray::ray.
set(package ${LIBRAY_LIBDIR}/cmake/ray)
install(EXPORT rayTargets NAMESPACE ray:: DESTINATION ${package} COMPONENT development)
file(WRITE ${CMAKE_BINARY_DIR}/rayConfig.cmake
  "include(\"\${CMAKE_CURRENT_LIST_DIR}/rayTargets.cmake\")\n")
# While the major version is 0 a minor may change the interface (docs/abi.md).
write_basic_package_version_file(${CMAKE_BINARY_DIR}/rayConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/rayConfig.cmake ${CMAKE_BINARY_DIR}/rayConfigVersion.cmake
  DESTINATION ${package} COMPONENT development)

# pkg-config libray. It asks where its own file lies, so that the folder can be moved.
file(WRITE ${CMAKE_BINARY_DIR}/libray.pc
"prefix=\${pcfiledir}/../..
libdir=\${prefix}/${LIBRAY_LIBDIR}
includedir=\${prefix}/include

Name: libray
Description: tasks, actors and a shared-memory object store over one C library
Version: ${PROJECT_VERSION}
Libs: -L\${libdir} -lray
Cflags: -I\${includedir}
")
install(FILES ${CMAKE_BINARY_DIR}/libray.pc DESTINATION ${LIBRAY_LIBDIR}/pkgconfig COMPONENT development)

# ---- packages: cpack -G TGZ, cpack -G DEB in the build folder

set(CPACK_PACKAGE_NAME libray)
set(CPACK_PACKAGE_VENDOR libray)
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "tasks, actors and a shared-memory object store over one C library")
set(CPACK_PACKAGE_CONTACT "libray <libray@localhost>")
set(CPACK_RESOURCE_FILE_LICENSE ${PROJECT_SOURCE_DIR}/LICENSE)
set(CPACK_STRIP_FILES ON)
set(CPACK_VERBATIM_VARIABLES ON)
set(CPACK_OUTPUT_FILE_PREFIX packages)
set(CPACK_PROJECT_CONFIG_FILE ${PROJECT_SOURCE_DIR}/cmake/package.cmake)
set(CPACK_COMPONENTS_GROUPING ALL_COMPONENTS_IN_ONE)
set(CPACK_COMPONENTS_ALL runtime development bundle)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_SECTION libs)
set(CPACK_DEBIAN_PACKAGE_SUGGESTS libmsgpack-cxx-dev)  # programs in C++ include its headers
file(WRITE ${CMAKE_BINARY_DIR}/triggers "activate-noawait ldconfig\n")
set(CPACK_DEBIAN_PACKAGE_CONTROL_EXTRA ${CMAKE_BINARY_DIR}/triggers)
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
include(CPack)

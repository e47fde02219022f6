# cmake -DSTAGE=FOLDER -DLIBRAY=… -DJNI=… -DPROGRAMS=… -DSTRIP=… -P stage.cmake: lays out what the jar carries.
string(REPLACE "|" ";" PROGRAMS "${PROGRAMS}")
file(REMOVE_RECURSE ${STAGE})
file(MAKE_DIRECTORY ${STAGE}/lib ${STAGE}/bin)

# Copies a library or program under a name, without symbols; `rpath`: where it looks for its libraries.
function(take from to rpath)
  file(REAL_PATH ${from} real)
  execute_process(COMMAND ${STRIP} --strip-unneeded -o ${to} ${real} COMMAND_ERROR_IS_FATAL ANY)
  file(CHMOD ${to} PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE)
  file(READ_ELF ${to} RUNPATH old CAPTURE_ERROR ignored)
  if(old)
    list(JOIN old ":" old)
    file(RPATH_CHANGE FILE ${to} OLD_RPATH "${old}" NEW_RPATH "${rpath}")
  endif()
endfunction()

take(${LIBRAY} ${STAGE}/lib/libray.so.0 "$ORIGIN")
take(${JNI} ${STAGE}/lib/libray_java.so "$ORIGIN")
foreach(program ${PROGRAMS})
  get_filename_component(name ${program} NAME)
  take(${program} ${STAGE}/bin/${name} "$ORIGIN/../lib")
endforeach()

# Shared libraries that a system without libray's build tools may lack. libc and libstdc++ are everywhere.
file(GET_RUNTIME_DEPENDENCIES RESOLVED_DEPENDENCIES_VAR needed UNRESOLVED_DEPENDENCIES_VAR missing
  EXECUTABLES ${PROGRAMS} LIBRARIES ${LIBRAY}
  PRE_EXCLUDE_REGEXES "^libc\\.so" "^libm\\.so" "^libpthread\\.so" "^libdl\\.so" "^librt\\.so" "^ld-linux"
    "^libgcc_s\\.so" "^libstdc" "^libray\\.so")
foreach(library ${needed})
  get_filename_component(name ${library} NAME)
  take(${library} ${STAGE}/lib/${name} "$ORIGIN")
endforeach()

file(GLOB_RECURSE files RELATIVE ${STAGE} ${STAGE}/lib/* ${STAGE}/bin/*)
list(SORT files)
set(sums "")
foreach(name ${files})
  file(SHA256 ${STAGE}/${name} sum)
  string(APPEND sums "${sum}  ${name}\n")
endforeach()
file(WRITE ${STAGE}/SHA256SUMS "${sums}")

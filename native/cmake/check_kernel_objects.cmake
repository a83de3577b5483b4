# Fails if an object file of one code path defines a symbol that the linker would share with others:
# an inline function of a header, compiled with instructions that another processor may lack.
#
# Usage: cmake -DNM=nm -DOBJECTS=a.o;b.o -P check_kernel_objects.cmake
foreach(object IN LISTS OBJECTS)
  execute_process(COMMAND ${NM} --defined-only ${object} OUTPUT_VARIABLE symbols
    COMMAND_ERROR_IS_FATAL ANY)
  string(REGEX MATCHALL "[^\n]* [WVuw] [^\n]*" shared "${symbols}")
  if(shared)
    message(FATAL_ERROR "${object} defines symbols that other code paths would share:\n${shared}\n"
      "Give them internal linkage, or do not include the header they come from.")
  endif()
endforeach()

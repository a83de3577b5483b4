// Finds Python in this process, or starts the one that the plugin was built for.
//
// Only a few functions of CPython are needed, by name: neither its headers nor a library to link.

#include "interpreter.h"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <dlfcn.h>

#ifndef OARLOCK_PYTHON
#error "OARLOCK_PYTHON has to be the Python that the plugin is built for"
#endif

namespace oarlock {
namespace {

struct Python {
  int (*is_initialized)();
  void (*initialize)(int);
  void (*set_program_name)(const wchar_t *);
  wchar_t *(*decode)(const char *, size_t *);
  void *(*release_lock)();
  int (*ensure)();
  void (*release)(int);
  int (*run)(const char *);
};

Python python{};
Calls calls{};
bool connected = false;

template <class Function> bool find(Function &function, const char *name)
{
  function = reinterpret_cast<Function>(dlsym(RTLD_DEFAULT, name));
  return function != nullptr;
}

bool find_python(std::string &message)
{
  if (!find(python.is_initialized, "Py_IsInitialized")) {
    // Modules of Python expect its functions among the symbols of the process.
    if (!dlopen(OARLOCK_PYTHON_LIBRARY, RTLD_NOW | RTLD_GLOBAL)) {
      const char *reason = dlerror();
      message = std::string("Python's library cannot be loaded (") + (reason ? reason : "") +
          "): run LAMMPS from Python (python -m oarlock.sci_md.lammps -in FILE), or build the "
          "plugin anew in an environment that has it";
      return false;
    }
    find(python.is_initialized, "Py_IsInitialized");
  }
  if (python.is_initialized && find(python.initialize, "Py_InitializeEx") &&
      find(python.set_program_name, "Py_SetProgramName") && find(python.decode, "Py_DecodeLocale") &&
      find(python.release_lock, "PyEval_SaveThread") && find(python.ensure, "PyGILState_Ensure") &&
      find(python.release, "PyGILState_Release") && find(python.run, "PyRun_SimpleString"))
    return true;
  message = "this process holds a Python that the plugin does not know: build it anew";
  return false;
}

void start_python()
{
  // Python finds its environment by the place of its executable. Interrupts stay with LAMMPS.
  setenv("GLOG_minloglevel", "1", 0);    // Paddle's notices would go between the lines of LAMMPS
  python.set_program_name(python.decode(OARLOCK_PYTHON, nullptr));
  python.initialize(0);
  python.release_lock();
}

}    // namespace

bool alive()
{
  return python.is_initialized && python.is_initialized();
}

const Calls *connect(std::string &message)
{
  if (connected && alive()) return &calls;
  if (!python.run && !find_python(message)) return nullptr;
  if (!python.is_initialized()) start_python();

  static char said[MESSAGE_SIZE];
  static char program[1024];
  said[0] = '\0';
  std::snprintf(program, sizeof(program),
                "exec('''\n"
                "try:\n"
                "    from oarlock.sci_md.lammps import bridge\n"
                "    bridge.connect(%llu)\n"
                "except BaseException as error:\n"
                "    import ctypes\n"
                "    text = (type(error).__name__ + ': ' + str(error)).encode()[:%d]\n"
                "    ctypes.memmove(%llu, text + bytes(1), len(text) + 1)\n"
                "''', {})\n",
                (unsigned long long) (uintptr_t) &calls, MESSAGE_SIZE - 1,
                (unsigned long long) (uintptr_t) said);
  const int state = python.ensure();
  const int failed = python.run(program);
  python.release(state);
  if (failed || said[0]) {
    message = std::string("oarlock.sci_md cannot be imported by Python (built for ") +
        OARLOCK_PYTHON + "): " + said;
    return nullptr;
  }
  connected = true;
  return &calls;
}

}    // namespace oarlock

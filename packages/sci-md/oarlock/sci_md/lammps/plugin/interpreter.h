#pragma once

#include "calls.h"

#include <string>

namespace oarlock {

// The functions in Python, which is started if this process has none.
// Gives null and a message if they cannot be had.
const Calls *connect(std::string &message);

// Whether Python still runs: it may end before LAMMPS does.
bool alive();

}    // namespace oarlock

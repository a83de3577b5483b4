// pair_style oarlock: potentials of oarlock.sci_md, evaluated by Python.
#pragma once

#include "calls.h"

#include "lmptype.h"
#include "pair.h"

#include <cstdint>
#include <string>
#include <vector>

namespace LAMMPS_NS {

class PairOarlock : public Pair {
 public:
  explicit PairOarlock(class LAMMPS *);
  ~PairOarlock() override;

  void settings(int, char **) override;
  void coeff(int, char **) override;
  void modify_params(int, char **) override;
  void init_style() override;
  double init_one(int, int) override;
  void compute(int, int) override;

  int pack_reverse_comm(int, int, double *) override;
  void unpack_reverse_comm(int, int *, double *) override;
  double memory_usage() override;

 private:
  const oarlock::Calls *calls = nullptr;
  oarlock::Model model{};
  bool opened = false;
  double unit = 1.0;

  // The lists of LAMMPS in one piece, copied when LAMMPS has built them anew.
  std::vector<int64_t> offsets;
  std::vector<int> neighbours;
  const void *list_seen = nullptr;
  bigint builds_seen = -1, build_step_seen = -1;

  std::vector<double> ghost_forces;    // [atoms, 3] where LAMMPS does not return those of ghosts

  bool lists_of_ghosts() const;
  bool copy_lists();
  void evaluate(oarlock::Step &);
  void agree(int, const std::string &, int);
  void allocate();
  void close();
};

}    // namespace LAMMPS_NS

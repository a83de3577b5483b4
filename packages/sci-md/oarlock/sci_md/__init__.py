"""Molecular dynamics on PaddlePaddle: potentials, training, labels, DeePMD-kit, LAMMPS and ASE."""

#include "atoms/deep_potential_checks.h"

#include <string>

#include "core/error.h"

namespace oarlock::atoms {

void check(const oarlock_atoms_deep_potential& model) {
  if (model.bits != 32 && model.bits != 64)
    throw BadArgument("bits=" + std::to_string(model.bits) + " has to be 32 or 64");
  if (model.kinds < 1 || model.embedding_layers < 1 || model.fitting_layers < 1)
    throw BadArgument("a Deep Potential needs an element and a layer in each network");
  const std::int64_t nets = model.one_side ? model.kinds : model.kinds * model.kinds;
  const auto chain = [](const oarlock_atoms_layer* layers, std::int64_t count, std::int64_t inputs,
                        const char* name) {
    for (std::int64_t l = 0; l < count; ++l) {
      if (layers[l].inputs != inputs || layers[l].outputs < 1)
        throw BadArgument(std::string(name) + " layer " + std::to_string(l) + " has " +
                          std::to_string(layers[l].inputs) + " inputs, but " +
                          std::to_string(inputs) + " come in");
      inputs = layers[l].outputs;
    }
    return inputs;
  };
  const std::int64_t width = chain(model.embedding, model.embedding_layers, 1, "embedding");
  for (std::int64_t one = 0; one < nets; ++one)
    for (std::int64_t l = 0; l < model.embedding_layers; ++l)
      if (model.embedding[one * model.embedding_layers + l].outputs != model.embedding[l].outputs)
        throw BadArgument("embedding networks have to be of the same widths");
  for (std::int64_t one = 0; one < nets; ++one)
    chain(model.embedding + one * model.embedding_layers, model.embedding_layers, 1, "embedding");
  if (model.axis < 1 || model.axis > width)
    throw BadArgument("axis=" + std::to_string(model.axis) + " has to be 1 to " +
                      std::to_string(width));
  for (std::int64_t kind = 0; kind < model.kinds; ++kind)
    if (chain(model.fitting + kind * (model.fitting_layers + 1), model.fitting_layers + 1,
              width * model.axis, "fitting") != 1)
      throw BadArgument("the last layer of a fitting network has to have one output");
}

void check(const oarlock_atoms_structure& given, std::int64_t kinds) {
  if (given.owned < 0 || given.owned > given.rows || given.rows > given.atoms)
    throw BadArgument("owned=" + std::to_string(given.owned) + " and rows=" +
                      std::to_string(given.rows) + " have to rise to atoms=" +
                      std::to_string(given.atoms));
  for (std::int64_t atom = 0; atom < given.atoms; ++atom)
    if (given.species[atom] < 0 || given.species[atom] >= kinds)
      throw BadArgument("species[" + std::to_string(atom) + "] is " +
                        std::to_string(given.species[atom]) + ", but there are " +
                        std::to_string(kinds) + " elements");
  for (std::int64_t atom = 0; atom < given.rows; ++atom)
    if (given.offsets[atom] < 0 || given.offsets[atom] > given.offsets[atom + 1])
      throw BadArgument("offsets have to rise, but do not at " + std::to_string(atom));
}

}  // namespace oarlock::atoms

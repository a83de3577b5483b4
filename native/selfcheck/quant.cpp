// Products with weights in few bits: whole numbers, which every path gets exactly, and any numbers against the same
// rounding in double precision.

#include <cstring>
#include <limits>

#include "check.h"
#include "rounding.h"

extern "C" {
std::int32_t oarlock_quant_pack_codes(const oarlock_tensors*, const oarlock_tensors*,
                                      const oarlock_tensors*, const oarlock_quant_options*,
                                      std::int32_t);
std::int32_t oarlock_quant_matmul(const oarlock_tensors*, const oarlock_tensors*,
                                  const oarlock_tensors*, const oarlock_tensors*,
                                  const oarlock_quant_options*, std::int32_t);
}

namespace {

using namespace selfcheck;

// Few rows and many, of which tiles of 3 and 6 are cut; int4 is widened from 24 on.
constexpr std::int64_t kRows[] = {1, 2, 3, 5, 7, 13, 24, 50};
constexpr std::int64_t kInputs[] = {1, 32, 65, 200}, kOutputs[] = {1, 17, 70};

Floats product(const Floats& x, std::int64_t rows, const Packed& w, const Floats& bias,
               std::int32_t threads, bool base, Floats out = {}) {
  const bool accumulate = !out.empty();
  out.resize(rows * w.outputs);
  Floats given = x, offsets = bias;
  const oarlock_quant_options o{w.sizes(), 0, accumulate, base};
  const One from("x", given.data(), oarlock::kFloat32, {rows, w.inputs});
  const One to("out", out.data(), oarlock::kFloat32, {rows, w.outputs});
  const One offset("bias", offsets.data(), oarlock::kFloat32, {w.outputs});
  require(oarlock_quant_matmul(from, One("weight", w.data, kUint8, {w.bytes}),
                               bias.empty() ? nullptr : static_cast<const oarlock_tensors*>(offset),
                               to, &o, threads) == OARLOCK_OK,
          std::string("quant matmul: ") + oarlock_last_error());
  return out;
}

std::uint64_t products_hash;

void check_product(Format format, std::int64_t rows, std::int64_t inputs, std::int64_t outputs) {
  const std::string name = std::string("quant matmul ") + kFormatNames[static_cast<int>(format)] + " " +
                           std::to_string(rows) + " " + std::to_string(inputs) + " " +
                           std::to_string(outputs);
  const Packed w(numbers(inputs * outputs, 1), inputs, outputs, format);
  const Floats weights = w.unpacked(), x = numbers(rows * inputs, 2), bias = numbers(outputs, 3);
  const Floats found = product(x, rows, w, bias, 1, false);
  products_hash = hash_of(found, products_hash);
  const Doubles taken = as_taken(x, rows, inputs, format);
  for (std::int64_t r = 0; r < rows; ++r)
    for (std::int64_t n = 0; n < outputs; ++n) {
      double sum = bias[n];
      for (std::int64_t k = 0; k < inputs; ++k) sum += taken[r * inputs + k] * weights[n * inputs + k];
      close(found[r * outputs + n], sum, 3e-6, name);
    }
  require(found == product(x, rows, w, bias, 3, false), name + ": other bits on three threads");
  require(found == product(x, rows, w, bias, 1, true), name + ": other bits by base instructions");
  // A row alone, and added to what is there.
  const std::int64_t r = rows / 2;
  const Floats row(x.begin() + r * inputs, x.begin() + (r + 1) * inputs);
  const Floats alone = product(row, 1, w, bias, 1, false), given = numbers(outputs, 4);
  const Floats added = product(row, 1, w, bias, 1, false, given);
  for (std::int64_t n = 0; n < outputs; ++n) {
    require(alone[n] == found[r * outputs + n], name + ": other bits of a row alone");
    require(added[n] == given[n] + alone[n], name + ": accumulation");
  }
}

void products() {
  products_hash = kNoBytes;
  for (int format = 0; format < oarlock::quant::kFormats; ++format)
    for (const std::int64_t rows : kRows)
      for (const std::int64_t inputs : kInputs)
        for (const std::int64_t outputs : kOutputs)
          check_product(static_cast<Format>(format), rows, inputs, outputs);
  recorded("quant products", products_hash, fuses() ? 0x4f588735da6c2320u : 0x8902bc6e232a1549u);
}

// Codes of the whole range with scales that are powers of two, of both signs, and rows of whole numbers whose largest
// is 127: sums are exact, so that all paths must agree in bits.
void whole_numbers(Format format, std::int64_t rows) {
  const std::int64_t inputs = 160, outputs = 45;
  const int least = format == Format::int8 ? -127 : -8, most = -least - (format == Format::int4);
  std::vector<std::int8_t> codes(outputs * inputs);
  for (std::size_t i = 0; i < codes.size(); ++i)
    codes[i] = static_cast<std::int8_t>(least + static_cast<int>(i * 7919 % (most - least + 1)));
  Floats scales(outputs * inputs / 32), x(rows * inputs);
  for (std::size_t i = 0; i < scales.size(); ++i)
    scales[i] = std::ldexp(i % 3 ? 1.0f : -1.0f, static_cast<int>(i % 5) - 2);
  for (std::size_t i = 0; i < x.size(); ++i)
    x[i] = i % 32 == 5 ? (i % 64 < 32 ? 127.0f : -127.0f) : static_cast<float>(int(i * 31 % 255) - 127);
  Packed w(inputs, outputs, format);
  const oarlock_quant_options o{w.sizes(), 0, 0, 0};
  const One given("codes", codes.data(), kInt8, {outputs, inputs});
  require(oarlock_quant_pack_codes(given, One("scales", scales.data(), oarlock::kFloat32, {outputs, inputs / 32}),
                                   One("out", w.data, kUint8, {w.bytes}), &o, 1) == OARLOCK_OK,
          std::string("quant pack_codes: ") + oarlock_last_error());
  const std::string name = std::string("quant whole numbers ") +
                           kFormatNames[static_cast<int>(format)] + " " + std::to_string(rows);
  const Floats found = product(x, rows, w, {}, 2, false), weights = w.unpacked();
  for (std::int64_t r = 0; r < rows; ++r)
    for (std::int64_t n = 0; n < outputs; ++n) {
      double sum = 0;
      for (std::int64_t k = 0; k < inputs; ++k) {
        const double code = codes[n * inputs + k] * double{scales[(n * inputs + k) / 32]};
        require(weights[n * inputs + k] == static_cast<float>(code), name + ": unpacked");
        sum += code * x[r * inputs + k];
      }
      close(found[r * outputs + n], sum, 0, name);
    }
  same_bits(name, std::vector<Floats>{found});
  std::vector<std::uint8_t> bytes(w.data, w.data + w.bytes);
  same_bits(name + " packed", std::vector<std::vector<std::uint8_t>>{bytes});
}

void whole() {
  for (const Format format : {Format::int8, Format::int4})
    for (const std::int64_t rows : kRows) whole_numbers(format, rows);
}

void bad_numbers() {
  for (const Format format : {Format::int8, Format::int4})
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(),
                            std::numeric_limits<float>::infinity()}) {
      const Packed w(numbers(64 * 20, 1), 64, 20, format);
      Floats x = numbers(3 * 64, 2);
      x[64 + 40] = bad;
      const Floats found = product(x, 3, w, {}, 1, false);
      for (std::int64_t i = 0; i < 60; ++i)
        require(std::isnan(found[i]) == (i / 20 == 1), "quant: NaN shows in its row only");
    }
}

const Register kProducts("quant products", products), kWhole("quant whole numbers", whole),
    kBad("quant bad numbers", bad_numbers);

}  // namespace

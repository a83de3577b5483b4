#include "codec/cosines.h"

#include <cmath>
#include <memory>
#include <mutex>

#include "codec/arguments.h"
#include "core/buffer.h"

namespace oarlock::codec {
namespace {

constexpr double kPi = 3.14159265358979323846;

struct Made {
  Buffer<float> memory;
  CosineTables tables;
};

// The transform's matrix [frequency][place]: an orthonormal DCT-II.
class Matrix {
 public:
  explicit Matrix(std::int64_t size) : size_(size), quarter_(size + 1) {
    for (std::int64_t i = 0; i <= size; ++i)
      quarter_[i] = std::cos(kPi * static_cast<double>(i) / static_cast<double>(2 * size));
  }

  float operator()(std::int64_t frequency, std::int64_t place) const {
    const double scale = std::sqrt((frequency == 0 ? 1.0 : 2.0) / static_cast<double>(size_));
    return static_cast<float>(scale * cosine(frequency * (2 * place + 1) % (4 * size_)));
  }

 private:
  // cos(pi i / (2 size)) for i in [0, 4 size), with the same bits in all quarters.
  double cosine(std::int64_t i) const {
    if (i > 2 * size_) i = 4 * size_ - i;
    return i > size_ ? -quarter_[2 * size_ - i] : quarter_[i];
  }

  std::int64_t size_;
  Buffer<double> quarter_;
};

std::unique_ptr<Made> make(std::int64_t size, bool inverse) {
  const Matrix matrix(size);
  const std::int64_t even = size - size / 2, odd = size / 2;
  const std::int64_t pitch = divided_up(even, kTablePitch) * kTablePitch;
  auto made = std::make_unique<Made>();
  made->memory.allocate((even + odd) * pitch);
  float* row = made->memory.data();
  for (const std::int64_t parity : {0, 1}) {
    const std::int64_t length = parity == 0 ? even : odd;
    for (std::int64_t i = 0; i < length; ++i, row += pitch)
      for (std::int64_t j = 0; j < pitch; ++j) {
        const std::int64_t frequency = 2 * (inverse ? i : j) + parity, place = inverse ? j : i;
        row[j] = j < length ? matrix(frequency, place) : 0.0f;
      }
  }
  made->tables = {size, pitch, made->memory.data(), made->memory.data() + even * pitch};
  return made;
}

}  // namespace

const CosineTables& cosine_tables(std::int64_t size, bool inverse) {
  static std::mutex mutex;
  static Made* made[2][kLargestTransform + 1];  // never destroyed
  const std::lock_guard<std::mutex> lock(mutex);
  Made*& one = made[inverse][size];
  if (one == nullptr) one = make(size, inverse).release();
  return one->tables;
}

}  // namespace oarlock::codec

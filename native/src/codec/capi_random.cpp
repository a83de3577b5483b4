// Entry points of entries at random positions, which both ends compute from the seed.
//
// The n elements stand in a circle that begins at a place of its own for each seed. It is divided into k
// arcs, as equal as may be, and each gives one entry. So the k positions are distinct, and each element
// is one of them with the same probability, k / n. Mirrored in reference/codec.py.

#include "codec/arguments.h"
#include "codec/parts.h"
#include "core/random.h"

using namespace oarlock;
using namespace oarlock::codec;

namespace {

// A number below `size` from 32 random bits.
std::uint64_t below(std::uint64_t size, std::uint64_t random) { return (random >> 32) * size >> 32; }

class Circle {
 public:
  Circle(std::int64_t n, std::int64_t k, std::uint64_t seed)
      : n_(static_cast<std::uint64_t>(n)), k_(static_cast<std::uint64_t>(k)), key_(mix(seed)),
        start_(below(n_, mix(~key_))) {}

  // Calls body(arc, position) for arcs [begin, end).
  template <typename Body>
  void for_positions(std::int64_t begin, std::int64_t end, const Body& body) const {
    std::uint64_t from = edge(begin);
    for (std::int64_t arc = begin; arc < end; ++arc) {
      const std::uint64_t to = edge(arc + 1);
      const std::uint64_t random = mix(key_ ^ static_cast<std::uint64_t>(arc));
      const std::uint64_t place = start_ + from + below(to - from, random);
      body(arc, place < n_ ? place : place - n_);
      from = to;
    }
  }

 private:
  std::uint64_t edge(std::int64_t arc) const { return static_cast<std::uint64_t>(arc) * n_ / k_; }

  std::uint64_t n_, k_, key_, start_;
};

std::int64_t checked_count(const oarlock_tensors& x, const oarlock_tensors& values, Access access) {
  check_positions(x);
  const std::int64_t n = x.items[0].count, k = flat(values, {kFloat32}, access).count;
  if (k > n)
    throw BadArgument(item_name(values, 0) + " has " + std::to_string(k) + " elements, but only " +
                      elements_of(x) + " can be sent; make it as long or shorter");
  return k;
}

}  // namespace

OARLOCK_API std::int32_t oarlock_codec_random_k(const oarlock_tensors* acc,
                                                const oarlock_tensors* values,
                                                const oarlock_codec_options* o,
                                                std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    const Access access = o->keep ? Access::write : Access::read;
    float* const x = data<float>(flat(*acc, {kFloat32}, access));
    const std::int64_t n = acc->items[0].count, k = checked_count(*acc, *values, Access::write);
    float* const to = data<float>(values->items[0]);
    check_overlap({{*acc, access}, {*values, Access::write}});
    if (k == 0) return;
    const Circle circle(n, k, o->seed);
    for_parts(Parts(k, 1), threads, [&](std::int64_t, std::int64_t begin, std::int64_t end) {
      circle.for_positions(begin, end, [&](std::int64_t arc, std::uint64_t place) {
        const float sent = o->weight * x[place];
        to[arc] = sent;
        if (o->keep) x[place] = x[place] - sent;
      });
    });
  });
}

OARLOCK_API std::int32_t oarlock_codec_random_k_add(const oarlock_tensors* values,
                                                    const oarlock_tensors* out,
                                                    const oarlock_codec_options* o,
                                                    std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    float* const y = data<float>(flat(*out, {kFloat32}, Access::write));
    const std::int64_t n = out->items[0].count, k = checked_count(*out, *values, Access::read);
    const float* const from = data<float>(values->items[0]);
    check_overlap({{*values, Access::read}, {*out, Access::write}});
    if (k == 0) return;
    const Circle circle(n, k, o->seed);
    for_parts(Parts(k, 1), threads, [&](std::int64_t, std::int64_t begin, std::int64_t end) {
      circle.for_positions(begin, end, [&](std::int64_t arc, std::uint64_t place) {
        y[place] = y[place] + o->weight * from[arc];
      });
    });
  });
}

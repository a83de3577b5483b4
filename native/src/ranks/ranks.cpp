#include "ranks/ranks.h"

#include "core/error.h"

namespace oarlock::ranks {

Ranks::Ranks(std::int32_t rank, std::int32_t count, std::int64_t slot_bytes, double timeout_s)
    : rank_(rank),
      count_(count),
      slot_bytes_(slot_bytes),
      timeout_(std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(timeout_s))),
      parts_(count > 0 ? count : 0) {
  if (count < 1 || count > kMostRanks)
    throw BadArgument("ranks must be between 1 and 64, not " + std::to_string(count));
  if (rank < 0 || rank >= count)
    throw BadArgument("rank must be in [0, " + std::to_string(count) + "), not " +
                      std::to_string(rank));
  if (slot_bytes < 64 || slot_bytes % 64 != 0)
    throw BadArgument("slot_bytes must be a positive multiple of 64, not " +
                      std::to_string(slot_bytes));
  if (!(timeout_s > 0 && timeout_s < 1e6))
    throw BadArgument("timeout_s must be positive, and below a million");
}

void Ranks::lost(std::int32_t whom, const std::string& why) {
  broken_ = "rank " + std::to_string(whom) + " " + why;
  throw Disconnected(broken_);
}

template <typename Body>
void Ranks::guard(const Body& body) {
  if (!broken_.empty()) throw Disconnected(broken_);
  const auto start = Clock::now();
  body();
  stats_.waited_ns +=
      std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - start).count();
}

void* Ranks::begin() {
  void* found = nullptr;
  guard([&] { found = slot(given_); });
  return found;
}

void Ranks::give(std::int64_t bytes, To to) {
  if (bytes < 0 || bytes > slot_bytes_)
    throw BadArgument("a part must have at most " + std::to_string(slot_bytes_) + " bytes, not " +
                      std::to_string(bytes));
  guard([&] { send(given_, bytes, to); });
  ++given_;
  ++stats_.exchanges;
  stats_.bytes += bytes;
}

const void* const* Ranks::take(To to, const std::int64_t* bytes) {
  guard([&] {
    if (to == To::all || rank_ == 0) receive(taken_, bytes, parts_.data());
  });
  return parts_.data();
}

void Ranks::progress() {
  guard([&] { move(); });
}

void Ranks::done() {
  read(taken_);
  ++taken_;
}

}  // namespace oarlock::ranks

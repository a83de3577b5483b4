// Processes ("ranks") that compute one model together: each gives its part of a sum and gets those of the others.
//
// All ranks go through the same exchanges in the same order. In one, a rank writes its part into memory that
// `begin` names, gives it, and later takes the parts of all. Several may be under way, so that one travels while the
// next is computed. Where a rank is gone, every other one gets Disconnected, now and in every later call.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

namespace oarlock::ranks {

constexpr std::int32_t kMostRanks = 64;

// For all ranks, or for the first alone, which itself has nothing to give then.
enum class To : std::int32_t { all, first };

struct Stats {
  std::int64_t exchanges = 0, bytes = 0;  // of this rank's parts
  std::int64_t waited_ns = 0;             // for others
};

class Ranks {
 public:
  static constexpr std::uint32_t kSlots = 4;  // exchanges under way
  using Clock = std::chrono::steady_clock;

  Ranks(std::int32_t rank, std::int32_t count, std::int64_t slot_bytes, double timeout_s);
  virtual ~Ranks() = default;
  Ranks(const Ranks&) = delete;
  Ranks& operator=(const Ranks&) = delete;

  std::int32_t rank() const { return rank_; }
  std::int32_t count() const { return count_; }
  std::int64_t slot_bytes() const { return slot_bytes_; }
  const Stats& stats() const { return stats_; }

  // Memory for this rank's part of the next exchange, `slot_bytes` long.
  void* begin();
  // The part is written.
  void give(std::int64_t bytes, To to);
  // Parts of the oldest exchange that was not taken, by rank, in memory until `done`. The others must have given
  // `bytes[r]` each. With To::first only the first rank gets parts; the others wait for nothing.
  const void* const* take(To to, const std::int64_t* bytes);
  void done();

  // Whether parts travel by themselves while this rank computes, if `progress` is called now and then.
  virtual bool travels() const { return false; }
  void progress();

 protected:
  struct Limit {
    Clock::time_point end;
    bool over() const { return Clock::now() > end; }
  };
  Limit limit() const { return {Clock::now() + timeout_}; }
  // Remembers the reason, and throws it.
  [[noreturn]] void lost(std::int32_t whom, const std::string& why);

  virtual void* slot(std::uint32_t exchange) = 0;  // waits until it is free
  virtual void send(std::uint32_t exchange, std::int64_t bytes, To to) = 0;
  virtual void receive(std::uint32_t exchange, const std::int64_t* bytes, const void** parts) = 0;
  virtual void read(std::uint32_t exchange) = 0;  // the parts are not needed any more
  virtual void move() {}

  Stats stats_;

 private:
  template <typename Body>
  void guard(const Body& body);
  const std::int32_t rank_, count_;
  const std::int64_t slot_bytes_;
  const Clock::duration timeout_;
  std::uint32_t given_ = 0, taken_ = 0;  // exchanges so far
  std::vector<const void*> parts_;
  std::string broken_;
};

// Sums of all ranks in pieces of rows: write(first, rows, part) this rank's, add(first, rows, parts) those of all.
// A row of `width` floats must fit into a slot.
template <typename Write, typename Add>
void sum(Ranks& ranks, std::int64_t rows, std::int64_t width, const Write& write, const Add& add) {
  const std::int64_t row_bytes = width * static_cast<std::int64_t>(sizeof(float));
  const std::int64_t most = ranks.slot_bytes() / row_bytes;
  const std::int64_t pieces = (rows + most - 1) / most;
  const auto begin_of = [&](std::int64_t piece) { return rows * piece / pieces; };
  std::vector<std::int64_t> bytes(ranks.count());
  for (std::int64_t given = 0, taken = 0; taken < pieces;) {
    if (given < pieces && given - taken < Ranks::kSlots - 1) {
      const std::int64_t first = begin_of(given), count = begin_of(++given) - first;
      write(first, count, static_cast<float*>(ranks.begin()));
      ranks.give(count * row_bytes, To::all);
      continue;
    }
    const std::int64_t first = begin_of(taken), count = begin_of(++taken) - first;
    bytes.assign(bytes.size(), count * row_bytes);
    add(first, count, reinterpret_cast<const float* const*>(ranks.take(To::all, bytes.data())));
    ranks.done();
  }
}

}  // namespace oarlock::ranks

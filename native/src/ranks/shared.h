// Ranks of one machine: parts stand in memory that all of them map.
#pragma once

#include <atomic>

#include "ranks/ranks.h"

namespace oarlock::ranks {

// A connection that ends when the process of a rank ends.
struct Watched {
  std::int32_t rank, descriptor;
};

class SharedRanks : public Ranks {
 public:
  // Bytes of a file that `count` ranks share; all zero at first.
  static std::int64_t bytes(std::int32_t count, std::int64_t slot_bytes);

  // Maps the file. `watched` descriptors stay the caller's and must stay open.
  SharedRanks(std::int32_t descriptor, std::int32_t rank, std::int32_t count,
              std::int64_t slot_bytes, double timeout_s, std::vector<Watched> watched);
  ~SharedRanks() override;

 protected:
  void* slot(std::uint32_t exchange) override;
  void send(std::uint32_t exchange, std::int64_t bytes, To to) override;
  void receive(std::uint32_t exchange, const std::int64_t* bytes, const void** parts) override;
  void read(std::uint32_t exchange) override;

 private:
  using Word = std::atomic<std::uint32_t>;
  // What a rank says; a line of the cache each for what is written and who sleeps.
  struct alignas(64) Cell {
    Word given;  // exchanges whose parts are written
    Word taken;  // exchanges whose parts of others were read
    alignas(64) Word sleepers;
    std::int64_t bytes[kSlots];
  };
  struct alignas(64) Header {
    Word failed;  // 1 + a rank that is lost
  };

  std::uint8_t* part(std::int32_t rank, std::uint32_t exchange) const;
  // Until `word` of a rank's cell has come to `wanted`.
  void wait(std::int32_t whom, Word Cell::*word, std::uint32_t wanted);
  void publish(Word Cell::*word, std::uint32_t value);
  void check_others(std::int32_t whom, const Limit& limit);
  [[noreturn]] void fail(std::int32_t whom, const std::string& why);

  std::vector<Watched> watched_;
  std::uint8_t* memory_ = nullptr;
  std::int64_t size_ = 0;
  Header* header_ = nullptr;
  Cell* cells_ = nullptr;
};

}  // namespace oarlock::ranks

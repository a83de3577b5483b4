#include "ranks/shared.h"

#include <linux/futex.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstring>

#include "core/error.h"
#include "ranks/pause.h"

namespace oarlock::ranks {
namespace {

constexpr long kLookNs = 100'000'000;  // how often a sleeper looks whether the others live

std::uint32_t* address(std::atomic<std::uint32_t>& word) {
  static_assert(sizeof word == sizeof(std::uint32_t) &&
                std::atomic<std::uint32_t>::is_always_lock_free);
  return reinterpret_cast<std::uint32_t*>(&word);
}

void sleep_while(std::atomic<std::uint32_t>& word, std::uint32_t value) {
  const timespec most{0, kLookNs};
  syscall(SYS_futex, address(word), FUTEX_WAIT, value, &most, nullptr, 0);
}

void wake(std::atomic<std::uint32_t>& word) {
  syscall(SYS_futex, address(word), FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

// Counts that may have gone through zero.
bool reached(std::uint32_t value, std::uint32_t wanted) {
  return static_cast<std::int32_t>(value - wanted) >= 0;
}

}  // namespace

std::int64_t SharedRanks::bytes(std::int32_t count, std::int64_t slot_bytes) {
  return static_cast<std::int64_t>(sizeof(Header) + count * sizeof(Cell)) +
         count * kSlots * slot_bytes;
}

SharedRanks::SharedRanks(std::int32_t descriptor, std::int32_t rank, std::int32_t count,
                         std::int64_t slot_bytes, double timeout_s, std::vector<Watched> watched)
    : Ranks(rank, count, slot_bytes, timeout_s),
      watched_(std::move(watched)),
      size_(bytes(count, slot_bytes)) {
  struct stat status;
  if (fstat(descriptor, &status) != 0 || status.st_size != size_)
    throw BadArgument("the shared file must have " + std::to_string(size_) + " bytes");
  void* const found = mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
  if (found == MAP_FAILED)
    throw BadArgument(std::string("the shared file cannot be mapped: ") + std::strerror(errno));
  memory_ = static_cast<std::uint8_t*>(found);
  header_ = reinterpret_cast<Header*>(memory_);
  cells_ = reinterpret_cast<Cell*>(memory_ + sizeof(Header));
}

SharedRanks::~SharedRanks() { munmap(memory_, size_); }

std::uint8_t* SharedRanks::part(std::int32_t rank, std::uint32_t exchange) const {
  return memory_ + sizeof(Header) + count() * sizeof(Cell) +
         (rank * kSlots + exchange % kSlots) * slot_bytes();
}

void* SharedRanks::slot(std::uint32_t exchange) {
  for (std::int32_t other = 0; other < count(); ++other)
    if (other != rank()) wait(other, &Cell::taken, exchange + 1 - kSlots);
  return part(rank(), exchange);
}

void SharedRanks::send(std::uint32_t exchange, std::int64_t bytes, To) {
  cells_[rank()].bytes[exchange % kSlots] = bytes;
  publish(&Cell::given, exchange + 1);
}

void SharedRanks::receive(std::uint32_t exchange, const std::int64_t* bytes, const void** parts) {
  for (std::int32_t other = 0; other < count(); ++other) {
    if (other != rank()) {
      wait(other, &Cell::given, exchange + 1);
      if (cells_[other].bytes[exchange % kSlots] != bytes[other]) fail(other, "is out of step");
    }
    parts[other] = part(other, exchange);
  }
}

void SharedRanks::read(std::uint32_t exchange) { publish(&Cell::taken, exchange + 1); }

void SharedRanks::publish(Word Cell::*word, std::uint32_t value) {
  Cell& own = cells_[rank()];
  (own.*word).store(value);
  if (own.sleepers.load() > 0) wake(own.*word);
}

void SharedRanks::wait(std::int32_t whom, Word Cell::*word, std::uint32_t wanted) {
  Cell& cell = cells_[whom];
  Word& value = cell.*word;
  for (int i = 0; i < kSpins; ++i) {
    if (reached(value.load(std::memory_order_acquire), wanted)) return;
    pause();
  }
  struct Sleeper {
    Word& count;
    explicit Sleeper(Word& given) : count(given) { count.fetch_add(1); }
    ~Sleeper() { count.fetch_sub(1); }
  } sleeper(cell.sleepers);
  const Limit until = limit();
  for (;;) {
    const std::uint32_t seen = value.load();
    if (reached(seen, wanted)) return;
    check_others(whom, until);
    sleep_while(value, seen);
  }
}

void SharedRanks::check_others(std::int32_t whom, const Limit& until) {
  if (const std::uint32_t failed = header_->failed.load()) fail(failed - 1, "is lost");
  for (const Watched& one : watched_) {
    pollfd asked{one.descriptor, POLLRDHUP, 0};
    if (poll(&asked, 1, 0) > 0) fail(one.rank, "has ended");
  }
  if (until.over()) fail(whom, "has not answered in time");
}

void SharedRanks::fail(std::int32_t whom, const std::string& why) {
  std::uint32_t none = 0;
  header_->failed.compare_exchange_strong(none, whom + 1);
  for (std::int32_t other = 0; other < count(); ++other) {
    wake(cells_[other].given);
    wake(cells_[other].taken);
  }
  lost(whom, why);
}

}  // namespace oarlock::ranks

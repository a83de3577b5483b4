#include "ranks/tcp.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/error.h"

namespace oarlock::ranks {
namespace {

constexpr std::uint32_t kMark = 0x52414f31;
constexpr int kTries = 20;      // before a thread sleeps; each asks the kernel
constexpr int kLookMs = 100;

}  // namespace

TcpRanks::TcpRanks(const std::int32_t* sockets, std::int32_t rank, std::int32_t count,
                   std::int64_t slot_bytes, double timeout_s)
    : Ranks(rank, count, slot_bytes, timeout_s), peers_(count) {
  for (Outgoing& one : out_)
    one.memory.allocate(static_cast<std::int64_t>(sizeof(Header)) + slot_bytes);
  for (std::int32_t other = 0; other < count; ++other) {
    if (other == rank) continue;
    Peer& peer = peers_[other];
    for (Incoming& one : peer.in) one.memory.allocate(slot_bytes);
    peer.socket = fcntl(sockets[other], F_DUPFD_CLOEXEC, 0);
    const int flags = peer.socket < 0 ? -1 : fcntl(peer.socket, F_GETFL);
    if (flags < 0 || fcntl(peer.socket, F_SETFL, flags | O_NONBLOCK) != 0)
      throw BadArgument("the socket of rank " + std::to_string(other) +
                        " cannot be used: " + std::strerror(errno));
    const int yes = 1;  // refused by sockets that are not of TCP, which need it not
    setsockopt(peer.socket, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
  }
}

TcpRanks::~TcpRanks() {
  for (const Peer& peer : peers_)
    if (peer.socket >= 0) close(peer.socket);
}

void* TcpRanks::slot(std::uint32_t exchange) {
  const Limit until = limit();
  for (std::int32_t other = 0; other < count(); ++other) {
    if (other == rank()) continue;
    // The exchange that was here before must have left.
    while (static_cast<std::int32_t>(exchange - peers_[other].sending) >=
           static_cast<std::int32_t>(kSlots))
      if (!(push(other) | (owes(peers_[other]) && pull(other)))) wait(other, until);
  }
  return out_[exchange % kSlots].memory.data() + sizeof(Header);
}

void TcpRanks::send(std::uint32_t exchange, std::int64_t bytes, To to) {
  Outgoing& one = out_[exchange % kSlots];
  Header header{kMark, exchange, bytes, {}};
  std::memcpy(one.memory.data(), &header, sizeof header);
  one.bytes = static_cast<std::int64_t>(sizeof header) + bytes;
  one.to = to;
  given_ = exchange + 1;
  for (std::int32_t other = 0; other < count(); ++other)
    if (other != rank()) push(other);
}

void TcpRanks::receive(std::uint32_t exchange, const std::int64_t* bytes, const void** parts) {
  Limit until = limit();
  for (std::int32_t other = 0; other < count(); ++other) {
    if (other == rank()) {
      parts[other] = out_[exchange % kSlots].memory.data() + sizeof(Header);
      continue;
    }
    const Peer& peer = peers_[other];
    for (int tries = 0; !whole(peer, exchange);) {
      bool moved = false;
      for (std::int32_t each = 0; each < count(); ++each)
        if (each != rank()) moved |= push(each) | (!whole(peers_[each], exchange) && pull(each));
      if (moved)
        until = limit();
      else if (++tries > kTries)
        wait(other, until);
    }
    if (peer.in[exchange % kSlots].bytes != bytes[other]) lost(other, "is out of step");
    parts[other] = peer.in[exchange % kSlots].memory.data();
  }
}

void TcpRanks::read(std::uint32_t exchange) {
  for (Peer& peer : peers_) peer.in[exchange % kSlots].bytes = -1;
  oldest_ = exchange + 1;
}

void TcpRanks::move() {
  for (std::int32_t other = 0; other < count(); ++other) {
    if (other == rank()) continue;
    push(other);
    if (owes(peers_[other])) pull(other);
  }
}

bool TcpRanks::owes(const Peer& peer) const {
  for (std::uint32_t exchange = oldest_; exchange != given_; ++exchange)
    if (!whole(peer, exchange)) return true;
  return false;
}

bool TcpRanks::push(std::int32_t whom) {
  Peer& peer = peers_[whom];
  bool moved = false;
  while (pending(peer)) {
    const Outgoing& one = out_[peer.sending % kSlots];
    if (sends_to(one, whom)) {
      const ssize_t count = ::send(peer.socket, one.memory.data() + peer.sent,
                                   one.bytes - peer.sent, MSG_NOSIGNAL);
      if (count < 0) {
        if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR) return moved;
        lost(whom, std::string("cannot be reached: ") + std::strerror(errno));
      }
      moved = true;
      peer.sent += count;
      if (peer.sent < one.bytes) return moved;
    }
    peer.sent = 0;
    ++peer.sending;
  }
  return moved;
}

bool TcpRanks::pull(std::int32_t whom) {
  constexpr auto kHead = static_cast<std::int64_t>(sizeof(Header));
  Peer& peer = peers_[whom];
  for (bool moved = false;; moved = true) {
    std::uint8_t* to = reinterpret_cast<std::uint8_t*>(&peer.header) + peer.received;
    std::int64_t left = kHead - peer.received;
    if (left <= 0) {
      Incoming& in = peer.in[peer.header.exchange % kSlots];
      // What runs so far ahead stays with the kernel.
      if (peer.header.exchange - oldest_ >= kSlots) return moved;
      to = in.memory.data() + peer.received - kHead;
      left = peer.header.bytes + kHead - peer.received;
      if (left == 0) {
        in.bytes = peer.header.bytes;
        peer.received = 0;
        if (owes(peer)) continue;  // else the peer may have ended, and that would be no loss
        return true;
      }
    }
    const ssize_t count = ::recv(peer.socket, to, left, 0);
    if (count == 0) lost(whom, "has ended");
    if (count < 0) {
      if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR) return moved;
      lost(whom, std::string("cannot be reached: ") + std::strerror(errno));
    }
    peer.received += count;
    if (peer.received == kHead) check_header(whom);
  }
}

void TcpRanks::check_header(std::int32_t whom) {
  const Header& header = peers_[whom].header;
  if (header.mark != kMark || header.bytes < 0 || header.bytes > slot_bytes() ||
      static_cast<std::int32_t>(header.exchange - oldest_) < 0)
    lost(whom, "is out of step");
}

void TcpRanks::wait(std::int32_t whom, const Limit& until) {
  if (until.over()) lost(whom, "has not answered in time");
  std::vector<pollfd> asked;
  for (std::int32_t other = 0; other < count(); ++other) {
    const Peer& peer = peers_[other];
    if (other == rank()) continue;
    const short events = static_cast<short>((owes(peer) ? POLLIN : 0) |
                                            (pending(peer) ? POLLOUT : 0));
    if (events != 0) asked.push_back({peer.socket, events, 0});
  }
  poll(asked.data(), asked.size(), kLookMs);
}

}  // namespace oarlock::ranks

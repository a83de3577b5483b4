// Ranks of several machines: a connection between each two of them.
//
// The kernel sends and receives while the next part is computed; this class only fills and empties its buffers, and never
// blocks on one direction while the other is full.
#pragma once

#include "core/buffer.h"
#include "ranks/ranks.h"

namespace oarlock::ranks {

class TcpRanks : public Ranks {
 public:
  // Connected stream sockets by rank; that of this rank is not looked at. They become this object's own copies.
  TcpRanks(const std::int32_t* sockets, std::int32_t rank, std::int32_t count,
           std::int64_t slot_bytes, double timeout_s);
  ~TcpRanks() override;

  bool travels() const override { return true; }

 protected:
  void* slot(std::uint32_t exchange) override;
  void send(std::uint32_t exchange, std::int64_t bytes, To to) override;
  void receive(std::uint32_t exchange, const std::int64_t* bytes, const void** parts) override;
  void read(std::uint32_t exchange) override;
  void move() override;

 private:
  struct Header {
    std::uint32_t mark, exchange;
    std::int64_t bytes;
    std::uint8_t rest[48];  // so that parts begin at a line of the cache
  };
  static_assert(sizeof(Header) == 64);
  struct Incoming {
    Buffer<std::uint8_t> memory;
    std::int64_t bytes = -1;  // below 0 until it is whole
  };
  struct Peer {
    int socket = -1;
    Incoming in[kSlots];
    Header header;              // of what is being received
    std::int64_t received = 0;  // bytes of it, with the header
    std::uint32_t sending = 0;  // exchange
    std::int64_t sent = 0;      // bytes of it
  };
  struct Outgoing {
    Buffer<std::uint8_t> memory;
    std::int64_t bytes = 0;  // with the header
    To to = To::all;
  };

  bool sends_to(const Outgoing& one, std::int32_t whom) const {
    return one.to == To::all || (whom == 0 && rank() != 0);
  }
  // Moves what the kernel takes and has; whether anything moved.
  bool push(std::int32_t whom);
  bool pull(std::int32_t whom);
  void check_header(std::int32_t whom);
  void wait(std::int32_t whom, const Limit& limit);
  bool pending(const Peer& peer) const { return peer.sending != given_; }
  bool whole(const Peer& peer, std::uint32_t exchange) const {
    return peer.in[exchange % kSlots].bytes >= 0;
  }
  // Whether something will come that this rank has given its own part of.
  bool owes(const Peer& peer) const;

  std::vector<Peer> peers_;
  Outgoing out_[kSlots];
  std::uint32_t given_ = 0, oldest_ = 0;  // exchanges: given, and not read yet
};

}  // namespace oarlock::ranks

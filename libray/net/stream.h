// One byte stream of NNG (tcp, tls+tcp or ipc): reads one piece at a time, writes whole lists of pieces.
//
// Who: the transport, on its thread. The owner's calls come on NNG's threads, never two of one kind at a time; after
// the destructor there are none.
#pragma once
#include <nng/nng.h>

#include <string>
#include <string_view>
#include <vector>

#include "libray/net/core/endpoint.h"

namespace ray::net {

class Stream {
 public:
  class Owner {
   public:
    virtual ~Owner() = default;
    // Nothing more is read before read_on(): so the bytes stay where they are, and a busy node stops its peers.
    virtual void on_bytes(Conn conn, std::string_view bytes) = 0;
    virtual void on_written(Conn conn) = 0;
    virtual void on_broken(Conn conn, const std::string& why) = 0;
  };
  // Takes the stream. Null: memory is out.
  static std::unique_ptr<Stream> make(Conn conn, nng_stream* stream, Owner* owner);
  ~Stream();
  void read_on();
  // From the next read_on() on more at a time. Who has proved nothing costs little.
  void trust();
  // One at a time, the next after on_written.
  void write(std::vector<Piece> pieces);
  std::string peer_address() const;

 private:
  Stream(Conn conn, nng_stream* stream, Owner* owner) : conn_(conn), stream_(stream), owner_(owner) {}
  static void on_read(void* self);
  static void on_sent(void* self);
  void send_some();

  const Conn conn_;
  nng_stream* stream_;
  Owner* owner_;
  nng_aio *read_ = nullptr, *write_ = nullptr;
  std::string in_;
  std::vector<Piece> out_;  // being written, from out_at_ bytes on
  std::vector<std::string_view> parts_;
  size_t part_ = 0;
};

std::string address_text(const nng_sockaddr& address);

}  // namespace ray::net

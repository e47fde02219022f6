// See nng_close.h.
#include "libray/net/nng_close.h"

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>

#include "libray/base/log.h"
#include "libray/base/thread.h"

namespace ray::net {

void close_socket(nng_socket socket) {
  struct State {
    std::mutex mutex;
    std::condition_variable cv;
    bool closed = false;
  };
  // Replies that are on their way shall be through before the connection ends.
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  auto state = std::make_shared<State>();
  std::thread closer;
  Status s = start_thread(&closer, "a thread that closes a socket", [socket, state] {
    nng_close(socket);
    std::lock_guard lock(state->mutex);
    state->closed = true;
    state->cv.notify_all();
  });
  if (!s.ok()) return;  // left to the end of the process, which is near
  closer.detach();
  std::unique_lock lock(state->mutex);
  if (!state->cv.wait_for(lock, std::chrono::seconds(1), [&] { return state->closed; }))
    log(kLogInfo, "gcs", "close-stuck",
        "a socket does not close; it is left to the end of the process");
}

void abandon_socket(nng_socket socket) {
  std::thread closer;
  auto close = [socket] {
    // Replies to requests that were given up are still coming in; see nng_close.h.
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    nng_close(socket);
  };
  if (start_thread(&closer, "a thread that closes a socket", close).ok()) closer.detach();
}

}  // namespace ray::net

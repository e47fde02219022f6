// See nng_start.h.
#include "libray/net/nng_start.h"

#include <nng/nng.h>

#include <mutex>

#include "libray/net/nng_threads.h"

namespace ray::net {

Status start_nng() {
  static std::mutex mutex;
  static bool started = false;
  std::lock_guard lock(mutex);
  if (started) return Status();
  RAY_TRY(park_nng_threads());
#ifndef LIBRAY_NNG_REDIRECTED
  end_parked_threads();  // NNG makes its own; that others take the places meanwhile cannot be
                         // helped
#endif
  nng_aio* first = nullptr;
  int rv = nng_aio_alloc(&first, nullptr, nullptr);
  end_parked_threads();
  if (rv != 0) return error(RAY_OUT_OF_MEMORY, "cannot start NNG: %s", nng_strerror(rv));
  nng_aio_free(first);
  started = true;
  return Status();
}

}  // namespace ray::net

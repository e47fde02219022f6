// How full the store is, as a client sees it. Read from memory that every client maps: any thread, no message, no lock.
// Asked by the query "store_usage" (libray/runtime/queries.cc).
#pragma once
#include <cstdint>

#include "store/client.h"

namespace ray::store {

struct Usage {  // bytes; waiting: requests for which there is no room now
  uint64_t capacity = 0, used = 0, waiting = 0;
};
// From memory that the daemon keeps up to date within a few of its passes: no question, no wait. Zeros in a forked child.
Usage usage_of(const Client& client);

}  // namespace ray::store

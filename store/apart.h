// What a full store leaves to a reader: a copy of its own in place of a pin, and what its pins keep in memory.
// Who calls it: the runtime's get (libray/runtime). Threads: any.
#pragma once
#include "store/client.h"

namespace ray::store {

// Client::pin; but a spilled object for which the store has no room, for that is pinned, is read into memory of this
// process's own. Such a pin is let go by Client::unpin like any other.
Status pin_or_copy(Client& client, const ObjectId& id, const Location& hint, int64_t timeout_ns, int64_t within_ns, Pin* out);

// Bytes of what this process's own pins keep in the store. Looks at each of them: for the text of an error.
uint64_t pinned_by(const Client& client);
// The same, up to a second old: for who may ask again and again.
uint64_t pinned_lately(const Client& client);

}  // namespace ray::store

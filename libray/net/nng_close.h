// Closing an NNG socket within a bounded time. NNG 1.5.2 can wait for ever in nng_close when a
// connection ends while one of its internal operations is being started (nanomsg/nng issues 1543
// and 1813). So the connection is given a moment to fall silent; if it happens all the same, the
// close stays behind on a thread of its own, and the process goes on without it. Any thread.
#pragma once
#include <nng/nng.h>

namespace ray::net {

// To be called when none of the socket's operations is under way any more.
void close_socket(nng_socket socket);
// The same without waiting: the close is left to a thread of its own.
void abandon_socket(nng_socket socket);

}  // namespace ray::net

// The start of NNG, once per process, before anything else of it is used. Any thread.
#pragma once
#include "libray/base/status.h"

namespace ray::net {

// Fails with the name of the limit where the system has no threads for it; may be tried again then.
Status start_nng();

}  // namespace ray::net

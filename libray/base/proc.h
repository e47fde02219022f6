// What /proc says of another process. Any thread; a look costs some tens of microseconds.
#pragma once

namespace ray {

// Whether a signal (SIGSTOP, SIGTSTP...) has stopped the process. One that a debugger holds is not: whoever
// debugs knows what waits. False when the process is gone or cannot be read.
bool is_stopped(int pid);

}  // namespace ray

// What the system says of other processes and of programs. Any thread; a look costs some tens of microseconds.
#pragma once

namespace ray {

// Whether a signal (SIGSTOP, SIGTSTP...) has stopped the process. One that a debugger holds is not: whoever
// debugs knows what waits. False when the process is gone or cannot be read.
bool is_stopped(int pid);

// Whether this process may run the file, by the rights that exec looks at (access() looks at those of the
// real user alone, without capabilities). False sets errno.
bool is_program(const char* path);

}  // namespace ray

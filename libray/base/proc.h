// What the system says of other processes and of programs. Any thread; a look costs some tens of microseconds.
#pragma once
#include <string>
#include <vector>

namespace ray {

// The bytes of a file of /proc; what there is of them when it cannot be read (to its end): the process may go
// at any moment.
std::string read_proc(const std::string& path);

// Whether a signal (SIGSTOP, SIGTSTP...) has stopped the process. One that a debugger holds is not: whoever
// debugs knows what waits. False when the process is gone or cannot be read.
bool is_stopped(int pid);

// Whether this process may run the file, by the rights that exec looks at (access() looks at those of the
// real user alone, without capabilities). False sets errno.
bool is_program(const char* path);

// Processes whose parent this one is: those that its main thread started, and orphans that it was given as a subreaper.
// Dead ones that nobody has waited for are among them.
std::vector<int> own_children();
bool is_zombie(int pid);

// Kills every process of this user that was started with this in its environment ("NAME=VALUE"), by itself or by what it
// was forked from, but for this one; until there is none, for some seconds at most. Those that have a variable `later` too
// are left alone for two of them: they know better what to end before them.
void kill_with_environment(const std::string& entry, const std::string& later);

// A signal to the process that the descriptor is open to, never to another that got its number. errno when it fails.
bool pidfd_signal(int pidfd, int signal);

}  // namespace ray

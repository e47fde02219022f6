// What the process has once, however many runtimes it starts: handles, entries of objects and tasks, registered
// functions, runtimes that ended. Each is made at its first use, and lives as long as the process.
#pragma once

namespace ray {

// By ray_init, before anything else of a runtime: what one thread makes at the moment at which another one forks stays
// half made in the child, where whoever needs it would wait for ever.
void make_process_wide();

}  // namespace ray

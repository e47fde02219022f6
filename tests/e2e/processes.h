/* processes.h -- what the end-to-end tests see of a cluster from outside: its processes, sockets,
 * descriptors. */
#ifndef TESTS_E2E_PROCESSES_H
#define TESTS_E2E_PROCESSES_H

#include <stdbool.h>
#include <stddef.h>

/* Gives this process, and so everything that it starts from now on, a mark of its own. Returns the
 * mark. */
const char* proc_mark(void);
/* Living processes with this mark, except this one; `text` (NULL = any) must be in their command
 * line. */
size_t proc_find(const char* mark, const char* text, long* pids, size_t max);
bool proc_none_left(void* mark); /* for CHECK_UNTIL: no process but this one carries the mark */
void proc_print(const char* mark);

/* Of this process, or of another. */
size_t proc_descriptors(long pid);
size_t proc_memfds(long pid); /* descriptors and mappings of memfds */
size_t proc_threads(long pid);
long proc_rss_kb(long pid);
long proc_shared_kb(long pid); /* the part of it that is mapped shared memory: rings, store */
/* Sockets, and files that are mapped nowhere and belong to nobody's history, below a directory. */
size_t files_of_type(const char* directory, char type); /* 's' = sockets, 'f' = regular files */

#endif

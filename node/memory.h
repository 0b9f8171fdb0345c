/* Room: node. What bounds this process's memory as a whole, and where SQLite's temporary files go.
 * Thread: main, before any other and before any database is opened. */
#ifndef NODE_MEMORY_H
#define NODE_MEMORY_H

/* DATA: the node's directory; temporary files (sorting, VACUUM) are made there, unless the
 * environment's SQLITE_TMPDIR names another one. For the life of the process. */
void memory_limit(const char *data);

#endif

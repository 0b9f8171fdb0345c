/* Room: client. `lectern cluster ...`: who the members are, and changing that. */
#ifndef CLIENT_SHELL_CLUSTER_H
#define CLIENT_SHELL_CLUSTER_H

/* ARGV[0] is "cluster". Returns the exit status: 0, 1 after an error, 2 for a wrong command line.
 */
int shell_cluster(int argc, char **argv);

#endif

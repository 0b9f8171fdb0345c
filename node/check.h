/* Room: node. `lecternd check DIR` (and `lectern check DIR`, which runs it): are a stopped node's
 * files whole, and do database and log agree? Thread: main; no loop runs. */
#ifndef NODE_CHECK_H
#define NODE_CHECK_H

/* ARGV[0] is "check". Returns the exit status: 0 all is well, 1 damaged or not to be checked, 2 a
 * wrong command line. */
int check_main(int argc, char **argv);

#endif

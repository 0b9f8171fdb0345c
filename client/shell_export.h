/* Room: client. `lectern export FILE` and `lectern dump [FILE]`. Thread: one. */
#ifndef CLIENT_SHELL_EXPORT_H
#define CLIENT_SHELL_EXPORT_H

/* The commands; ARGV[0] is "export" or "dump". The exit code. */
int shell_export(int argc, char **argv);
int shell_dump_command(int argc, char **argv);

#endif

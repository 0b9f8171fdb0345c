/* Room: base. The log for people: one line `time level room event key=value ...` on standard error.
 *
 * Lines about a write carry seq=, so that grep over all nodes tells its journey. Values with spaces
 * are quoted by the caller ("%s" in the format). Thread: any; one write(2) a line. */
#ifndef BASE_LOG_H
#define BASE_LOG_H

/* LOG_NONE as the least level: silence. */
enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR, LOG_NONE };

void log_set_level(enum log_level level);
/* Put before every line, for example "node=2 "; kept by copy (at most 63 bytes). */
void log_set_prefix(const char *prefix);
enum log_level log_get_level(void);
void log_write(enum log_level level, const char *room, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#define LOG(level, room, ...)                                                                      \
    do {                                                                                           \
        if ((level) >= log_get_level())                                                            \
            log_write((level), (room), __VA_ARGS__);                                               \
    } while (0)

#define log_debug(room, ...) LOG(LOG_DEBUG, room, __VA_ARGS__)
#define log_info(room, ...)  LOG(LOG_INFO, room, __VA_ARGS__)
#define log_warn(room, ...)  LOG(LOG_WARN, room, __VA_ARGS__)
#define log_error(room, ...) LOG(LOG_ERROR, room, __VA_ARGS__)

#endif

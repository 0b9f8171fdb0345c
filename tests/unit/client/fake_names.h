/* Room: tests. Names that this program alone knows: getaddrinfo is defined here, in front of the C
 * library's, which answers for all others. Thread: any. */
#ifndef TESTS_UNIT_CLIENT_FAKE_NAMES_H
#define TESTS_UNIT_CLIENT_FAKE_NAMES_H

#include <stdbool.h>

#define FAKE_NAME_BOTH   "both.test"   /* ::1, then 127.0.0.1 */
#define FAKE_NAME_THRICE "thrice.test" /* ::1, 127.0.0.1, ::1 */
#define FAKE_NAME_NONE   "none.test"   /* answered with an empty list */
#define FAKE_NAME_LATER  "later.test"  /* EAI_AGAIN: nobody can tell now */
#define FAKE_NAME_HANGS  "hangs.test"  /* 127.0.0.1, after fake_names_release */

void fake_names_release(void);
/* How many lookups of FAKE_NAME_HANGS hang now. */
int fake_names_hanging(void);

#endif

/* Room: tests. One frame of every type that clients and servers send, and a decoder of them all. */
#ifndef TESTS_UNIT_CLIENT_WIRE_SAMPLES_H
#define TESTS_UNIT_CLIENT_WIRE_SAMPLES_H

#include "client/wire.h"

#define SAMPLE_STREAM  5u
#define SAMPLE_REQUEST 77u

struct sample {
    const char *name;
    void (*put)(struct buf *b);
};
extern const struct sample samples[];
extern const unsigned n_samples;

/* Frames of requests carry it. */
struct wire_id sample_id(void);
/* The one frame that B holds, decoded and with the sample's id. */
struct wire_frame sample_frame(const struct buf *b);
/* A QUERY of each value type, with a kept statement. */
void put_sample_query(struct buf *b);

/* Runs the getter of the frame's type and walks through all that it hands out: every borrowed range
 * must lie within BYTES[0..N). A promise that the getter made and did not keep fails the test. */
enum err sample_decode(struct wire_frame f, const uint8_t *bytes, size_t n);

#endif

/* Room: replication. Images: repl_image_* of the door. Nothing for the room itself. */
#ifndef REPLICATION_IMAGE_H
#define REPLICATION_IMAGE_H

#include "replication/replication.h"

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/** \file The process that may still read files, for reloads: it is started before the front gives its rights up, reads the configuration,
 * checks it and the files that it names, and hands its text over. It sees nothing of the network, and the front can ask it for nothing
 * else. */
#pragma once

#include <stddef.h>

#include "front/config.h"

struct front_loader;

/** Starts it; no thread may run yet and nothing be open that it should not have. `file` lives as long as the process.
 * \return 0 or negative errno. */
int front_loader_start(const char *file, struct front_loader **out);
/** Readable when front_loader_take may be called. */
int front_loader_fd(const struct front_loader *l);
/** Asks for the text. \return 0; -EBUSY while an answer is on its way; -EPIPE: the process has gone. */
int front_loader_ask(struct front_loader *l);
/** Never waits. \return 0 and the text, which the caller frees; -EAGAIN: more is to come; -EINVAL: something is wrong, and a line on stderr
 * has said what; -EPIPE: the process has gone. */
int front_loader_take(struct front_loader *l, char **text, size_t *n);
/** Ends it. */
void front_loader_stop(struct front_loader *l);

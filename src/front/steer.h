/* SPDX-License-Identifier: Apache-2.0 */
/** \file Two kernel queues for each worker of one UDP listener: for those who show credentials or a route, and for everybody else. */
#pragma once

struct front_steer;

/** Loads the program (CAP_BPF, at the start). \return 0 or negative errno: the listener then has one queue a worker. */
int front_steer_new(unsigned workers, struct front_steer **out);
void front_steer_free(struct front_steer *s);
/** Bound sockets of one SO_REUSEPORT group. \return 0 or negative errno. */
int front_steer_add(struct front_steer *s, unsigned worker, int first, int strangers);

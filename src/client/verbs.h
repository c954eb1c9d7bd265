/* SPDX-License-Identifier: Apache-2.0 */
/** \file The client's verbs of the `walnut` command. argv[0] is the verb. Each returns the exit status: 0; 1 the connection failed (one
 * line on stderr says why); 2 usage, or an unfit file. */
#pragma once

int cmd_join(int argc, char **argv);
int cmd_connect(int argc, char **argv);
int cmd_proxy(int argc, char **argv);
int cmd_forward(int argc, char **argv);

/* SPDX-License-Identifier: Apache-2.0 */
/** \file The verbs that need no sign-in. argv[0] is the verb. Each returns the exit status: 0; 1 the daemon did not answer or refused; 2
 * usage, or an unfit file. Other than with 0, one line on stderr says why. The client's verbs are in client/verbs.h. */
#pragma once

int cmd_keys(int argc, char **argv);     /* keys init|show ROLE DIR */
int cmd_user(int argc, char **argv);     /* user add|del|list */
int cmd_sessions(int argc, char **argv); /* who has a hole open */
int cmd_kick(int argc, char **argv);     /* kick USER */
int cmd_status(int argc, char **argv);   /* of every daemon on this machine, or of one */
int cmd_why(int argc, char **argv);      /* why [CALL-ID|USER], of a front */
int cmd_gate(int argc, char **argv);     /* gate list|show|open|close|drain|drops|counters|trace */
int cmd_check(int argc, char **argv);    /* check FILE */

/* SPDX-License-Identifier: Apache-2.0 */
#include "front/watchdog.h"

int front_watchdog_look(struct front_watchdog *w, const uint64_t *turn, unsigned n)
{
	int stands = -1;

	for (unsigned i = 0; i < n; i++) {
		if (turn[i] == w->seen[i] && stands < 0)
			stands = (int)i;
		w->seen[i] = turn[i];
	}
	return stands;
}

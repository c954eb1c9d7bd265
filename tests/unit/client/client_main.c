/* SPDX-License-Identifier: Apache-2.0 */
/* The client's verbs alone, for the end-to-end test. */
#include <string.h>

#include "client/verbs.h"

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		int (*run)(int argc, char **argv);
	} verbs[] = {{"join", cmd_join}, {"connect", cmd_connect}, {"proxy", cmd_proxy}, {"forward", cmd_forward}};

	for (size_t i = 0; argc > 1 && i < sizeof(verbs) / sizeof(verbs[0]); i++) {
		if (strcmp(argv[1], verbs[i].name) == 0)
			return verbs[i].run(argc - 1, argv + 1);
	}
	return 2;
}

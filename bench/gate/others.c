/* SPDX-License-Identifier: Apache-2.0 */
/* gate-others CPU [PID...]: answers each line on its standard input with the nanoseconds that the core has run processes other than those
 * and than the kernel's own threads. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "others.skel.h"

int main(int argc, char **argv)
{
	struct others *o = others__open();
	char line[16];

	if (o == NULL || argc < 2 || (size_t)argc - 2 > sizeof(o->rodata->others_ours) / sizeof(o->rodata->others_ours[0])) {
		fprintf(stderr, "usage: gate-others CPU [PID...]\n");
		return 2;
	}
	o->rodata->others_cpu = (unsigned)atoi(argv[1]);
	for (int i = 2; i < argc; i++)
		*(int *)&o->rodata->others_ours[i - 2] = atoi(argv[i]);
	if (others__load(o) != 0 || others__attach(o) != 0) {
		fprintf(stderr, "gate-others: %s\n", strerror(errno));
		return 1;
	}
	while (fgets(line, sizeof(line), stdin) != NULL) {
		printf("%llu\n", (unsigned long long)o->bss->others_ns);
		fflush(stdout);
	}
	others__destroy(o);
	return 0;
}

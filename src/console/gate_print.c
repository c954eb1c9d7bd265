/* SPDX-License-Identifier: Apache-2.0 */
#include "console/gate_print.h"

#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "console/call.h"

#define ROW "%-20s %-16s %-4s %-22s %-22s %-22s %s\n"

static const char *member(const json_t *o, const char *key, char *buf, size_t cap)
{
	return call_text(json_object_get(o, key), buf, cap);
}

void gate_print_holes(const json_t *list)
{
	char hole[32], user[80], protocol[8], inside[64], remote[64], public[64], left[32];

	if (json_array_size(list) > 0)
		printf(ROW, "HOLE", "USER", "", "INSIDE", "REMOTE", "PUBLIC", "LEFT");
	for (size_t i = 0; i < json_array_size(list); i++) {
		const json_t *h = json_array_get(list, i);

		printf(ROW, member(h, "hole", hole, sizeof(hole)), member(h, "user", user, sizeof(user)),
		       member(h, "protocol", protocol, sizeof(protocol)), member(h, "inside", inside, sizeof(inside)),
		       member(h, "remote", remote, sizeof(remote)), member(h, "public", public, sizeof(public)),
		       call_duration(call_number(h, "left_s"), left, sizeof(left)));
	}
}

void gate_print_hole(const json_t *hole)
{
	static const char *const key[] = {"hole", "tenant", "user", "protocol", "tag", "inside", "remote", "public", "packets", "bytes"};
	char text[128];

	for (size_t i = 0; i < sizeof(key) / sizeof(key[0]); i++)
		printf("%-10s %s\n", key[i], member(hole, key[i], text, sizeof(text)));
	printf("%-10s %s\n", "left", call_duration(call_number(hole, "left_s"), text, sizeof(text)));
}

/* A member's name as it may be shown. */
static const char *name_of(const char *key, char *buf, size_t cap)
{
	json_t *s = json_string(key);

	call_text(s, buf, cap);
	json_decref(s);
	return buf;
}

void gate_print_counts(json_t *counts)
{
	char name[64];

	for (void *it = json_object_iter(counts); it != NULL; it = json_object_iter_next(counts, it))
		if (json_is_integer(json_object_iter_value(it)))
			printf("%-20s %20lld\n", name_of(json_object_iter_key(it), name, sizeof(name)),
			       (long long)json_integer_value(json_object_iter_value(it)));
}

void gate_print_rates(json_t *counts, const json_t *before, uint64_t after_ms)
{
	char name[64];

	printf("%-20s %20s %12s\n", "REASON", "PACKETS", "PER SECOND");
	for (void *it = json_object_iter(counts); it != NULL; it = json_object_iter_next(counts, it)) {
		const uint64_t n = call_number(counts, json_object_iter_key(it)), was = call_number(before, json_object_iter_key(it));

		if (n == 0)
			continue;
		printf("%-20s %20llu", name_of(json_object_iter_key(it), name, sizeof(name)), (unsigned long long)n);
		if (before != NULL && after_ms > 0)
			printf(" %12.0f\n", (double)(n > was ? n - was : 0) * 1000 / (double)after_ms);
		else
			printf(" %12s\n", "-");
	}
	putchar('\n');
}

void gate_print_counters(const json_t *status)
{
	static const char *const top[] = {"uptime_s", "draining", "holes", "flows", "mappings", "refused_keys"};
	static const char *const group[] = {"drops", "passed", "answers", "link"};
	char text[64];

	for (size_t i = 0; i < sizeof(top) / sizeof(top[0]); i++)
		if (json_object_get(status, top[i]) != NULL)
			printf("%-20s %20s\n", top[i], member(status, top[i], text, sizeof(text)));
	for (size_t i = 0; i < sizeof(group) / sizeof(group[0]); i++) {
		printf("\n%s\n", group[i]);
		gate_print_counts(json_object_get(status, group[i]));
	}
}

static const char *time_of(uint64_t ms, char *buf, size_t cap)
{
	time_t s = (time_t)(ms / 1000);
	struct tm tm;
	size_t n;

	if (gmtime_r(&s, &tm) == NULL || (n = strftime(buf, cap, "%Y-%m-%dT%H:%M:%S", &tm)) == 0)
		snprintf(buf, cap, "-");
	else
		snprintf(buf + n, cap - n, ".%03uZ", (unsigned)(ms % 1000));
	return buf;
}

static const char *protocol_of(const json_t *s, char *buf, size_t cap)
{
	const uint64_t protocol = call_number(s, "protocol"), ethertype = call_number(s, "ethertype");

	if (json_object_get(s, "protocol") == NULL)
		snprintf(buf, cap, "ethertype 0x%04x", (unsigned)(ethertype & 0xffff));
	else if (protocol == IPPROTO_TCP || protocol == IPPROTO_UDP)
		snprintf(buf, cap, "%s", protocol == IPPROTO_TCP ? "tcp" : "udp");
	else if (protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6)
		snprintf(buf, cap, "%s type %u code %u", protocol == IPPROTO_ICMP ? "icmp" : "icmp6",
			 (unsigned)(call_number(s, "type") & 0xff), (unsigned)(call_number(s, "code") & 0xff));
	else
		snprintf(buf, cap, "protocol %u", (unsigned)(protocol & 0xff));
	return buf;
}

/* "192.0.2.1:53", "[2001:db8::1]:53", or without the port. */
static const char *end_of(const json_t *s, const char *key, const char *port, char *buf, size_t cap)
{
	char address[64];
	const bool six = strchr(member(s, key, address, sizeof(address)), ':') != NULL;

	if (json_object_get(s, port) == NULL)
		snprintf(buf, cap, "%s", address);
	else
		snprintf(buf, cap, six ? "[%s]:%u" : "%s:%u", address, (unsigned)(call_number(s, port) & 0xffff));
	return buf;
}

void gate_print_dropped(const json_t *s)
{
	char time[40], reason[40], interface[32], protocol[48], source[96], destination[96], length[24];

	printf("%s %-16s %s %s", time_of(call_number(s, "time_ms"), time, sizeof(time)), member(s, "reason", reason, sizeof(reason)),
	       member(s, "interface", interface, sizeof(interface)), protocol_of(s, protocol, sizeof(protocol)));
	if (json_object_get(s, "source") != NULL)
		printf(" %s > %s", end_of(s, "source", "source_port", source, sizeof(source)),
		       end_of(s, "destination", "destination_port", destination, sizeof(destination)));
	printf(" length %s\n", member(s, "length", length, sizeof(length)));
}

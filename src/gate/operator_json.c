/* SPDX-License-Identifier: Apache-2.0 */
#include "gate/operator_json.h"

#include <netinet/in.h>
#include <sodium.h>
#include <string.h>
#include <strings.h>

#include "base/b64.h"
#include "base/ctl.h"

#define TENANT_UNKNOWN UINT32_MAX

static void set_number(json_t *o, const char *key, uint64_t v)
{
	json_object_set_new(o, key, json_integer((json_int_t)v));
}

static void set_text(json_t *o, const char *key, const char *v)
{
	json_object_set_new(o, key, json_string(v));
}

/* The tenant whose address this is. */
static uint32_t tenant_at(const struct gate_config *cfg, const struct wn_addr *inside)
{
	for (uint32_t t = 0; t < cfg->ntenant; t++)
		for (unsigned i = 0; i < cfg->tenant[t].nprefix; i++)
			if (wn_prefix_has(&cfg->tenant[t].prefix[i], inside))
				return t;
	return TENANT_UNKNOWN;
}

/* A member that nobody reads would be an option that does nothing: of an open, that can be a limit. */
static json_t *check_members(const json_t *request, const char *const *known, size_t n)
{
	const char *key;
	bool found;

	for (void *it = json_object_iter((json_t *)request); it != NULL; it = json_object_iter_next((json_t *)request, it)) {
		key = json_object_iter_key(it);
		found = false;
		for (size_t i = 0; i < n; i++)
			found = found || strcmp(key, known[i]) == 0;
		if (!found)
			return ctl_error("%.40s: unknown member of this command", key);
	}
	return NULL;
}

/* A whole number from min to max; `otherwise` when it is absent. */
static json_t *number_of(const json_t *request, const char *key, uint64_t otherwise, uint64_t min, uint64_t max, uint64_t *out)
{
	const json_t *v = json_object_get(request, key);

	*out = otherwise;
	if (v == NULL)
		return NULL;
	if (!json_is_integer(v) || json_integer_value(v) < 0 || (uint64_t)json_integer_value(v) < min ||
	    (uint64_t)json_integer_value(v) > max)
		return ctl_error("%s must be a whole number from %llu to %llu", key, (unsigned long long)min, (unsigned long long)max);
	*out = (uint64_t)json_integer_value(v);
	return NULL;
}

static json_t *number32_of(const json_t *request, const char *key, uint32_t otherwise, uint32_t min, uint32_t max, uint32_t *out)
{
	uint64_t v;
	json_t *error = number_of(request, key, otherwise, min, max, &v);

	*out = (uint32_t)v;
	return error;
}

static json_t *open_tenant(const struct gate_config *cfg, const json_t *request, struct gate_request *out)
{
	const json_t *v = json_object_get(request, "tenant");
	const char *name = json_string_value(v);

	if (v == NULL) {
		out->tenant = tenant_at(cfg, &out->inside);
		return out->tenant == TENANT_UNKNOWN
			       ? ctl_error("inside: the address is in no tenant's prefixes; the gate's file lists them")
			       : NULL;
	}
	for (out->tenant = 0; name != NULL && out->tenant < cfg->ntenant; out->tenant++)
		if (strcasecmp(cfg->tenant[out->tenant].name, name) == 0)
			return NULL;
	return ctl_error("tenant: \"%.64s\" is not in the gate's file", name != NULL ? name : "");
}

static json_t *open_addresses(const json_t *request, bool tag, struct gate_request *out)
{
	const char *inside = json_string_value(json_object_get(request, "inside"));
	const char *remote = json_string_value(json_object_get(request, "remote"));

	if (inside == NULL || wn_addr_parse(span_str(inside), -1, &out->inside) != 0 || out->inside.port == 0)
		return ctl_error("inside: \"%.60s\" is no address and port, such as 192.0.2.1:22", inside != NULL ? inside : "");
	/* With a tag, whoever has the key may come from anywhere. */
	if (tag && (remote == NULL || strcmp(remote, "any") == 0))
		return NULL;
	if (remote == NULL || wn_addr_parse(span_str(remote), 0, &out->remote) != 0)
		return ctl_error("remote: \"%.60s\" is no address, such as 198.51.100.7 or 198.51.100.7:5000",
				 remote != NULL ? remote : "");
	if (!tag && out->proto == IPPROTO_UDP && out->remote.port == 0)
		return ctl_error("remote: without a tag only address and port say who may use a UDP hole; give both");
	return NULL;
}

static json_t *open_user(const json_t *request, struct gate_request *out)
{
	const json_t *v = json_object_get(request, "user");
	const char *name = v == NULL ? "operator" : json_string_value(v);

	if (name == NULL || span_cstr(span_str(name), out->user, sizeof(out->user)) != 0)
		return ctl_error("user: must be 1 to %d characters of A-Z a-z 0-9 . _ -", GATE_USER_MAX);
	return NULL;
}

json_t *gate_json_open(const struct gate_config *cfg, const json_t *request, struct gate_request *out, json_t *answer)
{
	static const char *const known[] = {
		"cmd",    "protocol",    "inside",        "remote",           "lifetime_s",        "tenant", "user", "tag",
		"idle_s", "bytes_per_s", "packets_per_s", "user_bytes_per_s", "user_packets_per_s"};
	const char *protocol = json_string_value(json_object_get(request, "protocol"));
	const json_t *tag = json_object_get(request, "tag");
	char key[B64URL_LEN(sizeof(out->key)) + 1];
	bool tagged;
	json_t *error;

	memset(out, 0, sizeof(*out));
	out->op = GATE_OPEN;
	error = check_members(request, known, sizeof(known) / sizeof(known[0]));
	if (error != NULL)
		return error;
	if (protocol == NULL || (strcmp(protocol, "tcp") != 0 && strcmp(protocol, "udp") != 0))
		return ctl_error("protocol must be tcp or udp");
	if (tag != NULL && !json_is_boolean(tag))
		return ctl_error("tag must be true or false");
	out->proto = strcmp(protocol, "tcp") == 0 ? IPPROTO_TCP : IPPROTO_UDP;
	if (out->proto == IPPROTO_TCP && json_is_true(tag))
		return ctl_error("tag: only UDP packets can carry one");
	tagged = out->proto == IPPROTO_UDP && !json_is_false(tag);
	error = open_addresses(request, tagged, out);
	error = error ?: open_tenant(cfg, request, out);
	error = error ?: open_user(request, out);
	error = error ?: number32_of(request, "lifetime_s", 600, 1, GATE_LIFETIME_MAX_S, &out->lifetime_s);
	error = error ?: number32_of(request, "idle_s", 0, 0, GATE_IDLE_MAX_S, &out->idle_s);
	error = error ?: number_of(request, "bytes_per_s", 0, 0, GATE_BYTES_PER_S_MAX, &out->bytes_per_s);
	error = error ?: number32_of(request, "packets_per_s", 0, 0, GATE_PACKETS_PER_S_MAX, &out->packets_per_s);
	error = error ?: number_of(request, "user_bytes_per_s", 0, 0, GATE_BYTES_PER_S_MAX, &out->user_bytes_per_s);
	error = error ?: number32_of(request, "user_packets_per_s", 0, 0, GATE_PACKETS_PER_S_MAX, &out->user_packets_per_s);
	if (error != NULL)
		return error;
	if (tagged) {
		out->flags = GATE_FLAG_TAG;
		randombytes_buf(out->key, sizeof(out->key));
		key[b64url_encode(out->key, sizeof(out->key), key)] = 0;
		set_text(answer, "key", key);
		sodium_memzero(key, sizeof(key));
	}
	return gate_request_check(out) == 0 ? NULL : ctl_error("no such hole can be opened; walnut(1) says what user and addresses may be");
}

json_t *gate_json_hole_number(const json_t *request, uint64_t *out)
{
	const json_t *v = json_object_get(request, "hole");

	if (!json_is_integer(v) || json_integer_value(v) <= 0)
		return ctl_error("hole must be a number as `walnut gate list` shows it");
	*out = (uint64_t)json_integer_value(v);
	return NULL;
}

json_t *gate_json_trace(const json_t *request, struct gate_ipc_trace *out)
{
	const json_t *list = json_object_get(request, "reasons");
	const char *name;
	int r;

	memset(out, 0, sizeof(*out));
	if (list != NULL && !json_is_array(list))
		return ctl_error("reasons must be a list of names");
	for (size_t i = 0; i < json_array_size(list); i++) {
		name = json_string_value(json_array_get(list, i));
		r = name != NULL ? gate_reason_find(name) : -1;
		if (r < 0 || !gate_reason_is_drop((unsigned)r))
			return ctl_error("\"%.40s\" is no reason to drop a packet; `walnut gate drops` lists them",
					 name != NULL ? name : "");
		out->reasons[r / 64] |= 1ull << (r % 64);
	}
	for (unsigned i = 0; json_array_size(list) == 0 && i < gate_reason_count(); i++)
		if (gate_reason_is_drop(i))
			out->reasons[i / 64] |= 1ull << (i % 64);
	return number32_of(request, "per_s", GATE_TRACE_PER_S, 1, GATE_TRACE_MOST_PER_S, &out->per_s);
}

const char *gate_json_why(enum gate_status status)
{
	switch (status) {
	case GATE_OK:
		return NULL;
	case GATE_NOT_YOURS:
		return "the inside address is none of this tenant's; the gate's file lists its prefixes";
	case GATE_QUOTA:
		return "the tenant's holes are used up; its `holes` in the gate's file is the limit";
	case GATE_FULL:
		return "the table of holes is full; `holes` in the gate's file is its size";
	case GATE_NO_PORT:
		return "no public port is free (outside.ports and outside.addresses in the gate's file are the pool), or too many holes of "
		       "this "
		       "remote wait at a protected address's port";
	case GATE_NO_HOLE:
	case GATE_END:
		return "there is no such hole; `walnut gate list` shows those there are";
	case GATE_DRAINING:
		return "the gate drains: no new holes until `walnut gate drain off`";
	case GATE_FAILED:
		return "the kernel refused; the gate's log says why";
	default:
		return "the gate's map writer refused the record";
	}
}

json_t *gate_json_hole(const struct gate_config *cfg, const struct gate_reply *r)
{
	const uint32_t tenant = tenant_at(cfg, &r->inside);
	json_t *h = json_object();
	char buf[WN_ADDR_STR];

	set_number(h, "hole", r->hole);
	set_text(h, "tenant", tenant != TENANT_UNKNOWN ? cfg->tenant[tenant].name : "");
	set_text(h, "user", r->user);
	set_text(h, "protocol", r->proto == IPPROTO_TCP ? "tcp" : "udp");
	set_text(h, "inside", wn_addr_str(&r->inside, buf));
	set_text(h, "remote", wn_addr_str(&r->remote, buf));
	set_text(h, "public", wn_addr_str(&r->public, buf));
	json_object_set_new(h, "tag", json_boolean((r->flags & GATE_FLAG_TAG) != 0));
	set_number(h, "left_s", r->lifetime_s);
	set_number(h, "packets", r->packets);
	set_number(h, "bytes", r->bytes);
	return h;
}

json_t *gate_json_dropped(const struct gate_config *cfg, const struct gate_dropped *d, uint64_t unix_ms)
{
	json_t *o = json_object();
	char buf[WN_ADDR_STR];

	set_number(o, "time_ms", d->time_ms + unix_ms);
	set_text(o, "reason", gate_reason_name(d->reason));
	set_text(o, "side", d->side == GATE_DROPPED_OUTSIDE ? "outside" : d->side == GATE_DROPPED_INSIDE ? "inside" : "elsewhere");
	set_text(o, "interface", d->side == GATE_DROPPED_OUTSIDE ? cfg->outside : d->side == GATE_DROPPED_INSIDE ? cfg->inside : "");
	set_number(o, "length", d->length);
	set_number(o, "ethertype", d->ethertype);
	if (d->ip == 0)
		return o;
	set_number(o, "protocol", d->proto);
	set_text(o, "source", wn_ip_str(&d->src, buf));
	set_text(o, "destination", wn_ip_str(&d->dst, buf));
	if (d->proto == IPPROTO_TCP || d->proto == IPPROTO_UDP) {
		set_number(o, "source_port", d->src.port);
		set_number(o, "destination_port", d->dst.port);
	} else if (d->proto == IPPROTO_ICMP || d->proto == IPPROTO_ICMPV6) {
		set_number(o, "type", d->icmp_type);
		set_number(o, "code", d->icmp_code);
	}
	return o;
}

void gate_json_counter(json_t *status, const struct gate_ipc_counter *c)
{
	static const char *const top[] = {"holes", "flows", "mappings", "next_hops"};
	char name[sizeof(c->name)];
	json_t *in = json_object_get(status, c->is_drop ? "drops" : "passed");

	memcpy(name, c->name, sizeof(name));
	name[sizeof(name) - 1] = 0;
	if (!c->is_drop && strcmp(name, "draining") == 0) {
		json_object_set_new(status, name, json_boolean(c->value != 0));
		return;
	}
	for (size_t i = 0; i < sizeof(top) / sizeof(top[0]) && !c->is_drop; i++)
		if (strcmp(name, top[i]) == 0)
			in = status;
	set_number(in, name, c->value);
}

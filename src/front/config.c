/* SPDX-License-Identifier: Apache-2.0 */
#include "front/config.h"

#include <ctype.h>
#include <errno.h>
#include <sched.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/b64.h"
#include "base/config.h"

#define CALLS_PER_TENANT_MAX 4000000u
#define RATE_MAX             1000000u
#define STRANGERS_MAX        65536u /* front/strangers.h */

/* The file as libcyaml hands it over; optional numbers are pointers, so that an explicit 0 is seen. */
struct file_service {
	char *name, *route;
	bool *authenticate;
};

struct file_tenant {
	struct file_service *services;
	uint32_t services_count;
	char *domain, *agent_pin, *signing_key;
	char **algorithms;
	uint32_t algorithms_count;
	uint32_t *max_calls, *user_calls_per_s, *service_calls_per_s;
};

struct file_streams {
	uint32_t *max_connections, *per_address, *backlog;
	uint32_t *tls_handshakes, *tls_handshakes_per_s;
	uint32_t *tls_handshake_s, *first_message_s, *stranger_idle_s, *idle_s, *stalled_s;
};

struct file_root {
	struct file_streams *streams;
	char *listen, *agents, *keys, *socket, *user, *tls_certificate, *tls_key, *state, *metrics;
	char **also_listen;
	uint32_t also_listen_count;
	uint32_t *threads, *batch_wait_us, *strangers_max, *strangers_per_s, *nonce_lifetime_s, *nonce_ring_bits, *feed_max_age_s, *drain_s;
	struct file_tenant *tenants;
	uint32_t tenants_count;
};

static const cyaml_schema_value_t text = {CYAML_VALUE_STRING(CYAML_FLAG_POINTER, char, 1, 64)};

static const cyaml_schema_value_t address = {CYAML_VALUE_STRING(CYAML_FLAG_POINTER, char, 1, 255)};

static const cyaml_schema_field_t service_fields[] = {
	CYAML_FIELD_STRING_PTR("name", CYAML_FLAG_POINTER, struct file_service, name, 1, 255),
	CYAML_FIELD_STRING_PTR("route", CYAML_FLAG_POINTER, struct file_service, route, 1, 255),
	CYAML_FIELD_BOOL_PTR("authenticate", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct file_service, authenticate),
	CYAML_FIELD_END,
};

static const cyaml_schema_value_t service_entry = {CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct file_service, service_fields)};

static const cyaml_schema_field_t tenant_fields[] = {
	CYAML_FIELD_STRING_PTR("domain", CYAML_FLAG_POINTER, struct file_tenant, domain, 1, 255),
	CYAML_FIELD_STRING_PTR("agent_pin", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct file_tenant, agent_pin, 1, 255),
	CYAML_FIELD_STRING_PTR("signing_key", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct file_tenant, signing_key, 1, 255),
	CYAML_FIELD_SEQUENCE("algorithms", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct file_tenant, algorithms, &text, 1, 2),
	CYAML_FIELD_UINT_PTR("max_calls", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct file_tenant, max_calls),
	CYAML_FIELD_UINT_PTR("user_calls_per_s", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct file_tenant, user_calls_per_s),
	CYAML_FIELD_UINT_PTR("service_calls_per_s", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct file_tenant, service_calls_per_s),
	CYAML_FIELD_SEQUENCE("services", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct file_tenant, services, &service_entry, 1,
			     FRONT_SERVICES_MAX),
	CYAML_FIELD_END,
};

static const cyaml_schema_value_t tenant_entry = {CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct file_tenant, tenant_fields)};

#define STREAMS_NUMBER(key) CYAML_FIELD_UINT_PTR(#key, CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct file_streams, key)

static const cyaml_schema_field_t streams_fields[] = {
	STREAMS_NUMBER(max_connections),
	STREAMS_NUMBER(per_address),
	STREAMS_NUMBER(backlog),
	STREAMS_NUMBER(tls_handshakes),
	STREAMS_NUMBER(tls_handshakes_per_s),
	STREAMS_NUMBER(tls_handshake_s),
	STREAMS_NUMBER(first_message_s),
	STREAMS_NUMBER(stranger_idle_s),
	STREAMS_NUMBER(idle_s),
	STREAMS_NUMBER(stalled_s),
	CYAML_FIELD_END,
};

static const cyaml_schema_field_t root_fields[] = {
	CYAML_FIELD_STRING_PTR("listen", CYAML_FLAG_POINTER, struct file_root, listen, 1, 255),
	CYAML_FIELD_SEQUENCE("also_listen", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct file_root, also_listen, &address, 1,
			     FRONT_LISTENERS_MAX - 1),
	CYAML_FIELD_MAPPING_PTR("streams", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct file_root, streams, streams_fields),
	CYAML_FIELD_STRING_PTR("tls_certificate", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct file_root, tls_certificate, 1, 255),
	CYAML_FIELD_STRING_PTR("tls_key", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct file_root, tls_key, 1, 255),
	CYAML_FIELD_STRING_PTR("state", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct file_root, state, 1, 255),
	CYAML_FIELD_STRING_PTR("metrics", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct file_root, metrics, 1, 255),
	CYAML_FIELD_STRING_PTR("agents", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct file_root, agents, 1, 255),
	CYAML_FIELD_STRING_PTR("keys", CYAML_FLAG_POINTER, struct file_root, keys, 1, 255),
	CYAML_FIELD_STRING_PTR("socket", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct file_root, socket, 1, 255),
	CYAML_FIELD_STRING_PTR("user", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct file_root, user, 1, 255),
	CYAML_FIELD_UINT_PTR("threads", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct file_root, threads),
	CYAML_FIELD_UINT_PTR("strangers_max", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct file_root, strangers_max),
	CYAML_FIELD_UINT_PTR("batch_wait_us", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct file_root, batch_wait_us),
	CYAML_FIELD_UINT_PTR("strangers_per_s", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct file_root, strangers_per_s),
	CYAML_FIELD_UINT_PTR("nonce_lifetime_s", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct file_root, nonce_lifetime_s),
	CYAML_FIELD_UINT_PTR("nonce_ring_bits", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct file_root, nonce_ring_bits),
	CYAML_FIELD_UINT_PTR("feed_max_age_s", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct file_root, feed_max_age_s),
	CYAML_FIELD_UINT_PTR("drain_s", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct file_root, drain_s),
	CYAML_FIELD_SEQUENCE("tenants", CYAML_FLAG_POINTER, struct file_root, tenants, &tenant_entry, 1, FRONT_TENANTS_MAX),
	CYAML_FIELD_END,
};

static const cyaml_schema_value_t root = {CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct file_root, root_fields)};

/* Where an error is. */
struct at {
	const char *file;
	char prefix[32]; /* of a tenant's keys */
	char key[96];
};

static const char *at_key(struct at *at, const char *key)
{
	snprintf(at->key, sizeof(at->key), "%s%s", at->prefix, key);
	return at->key;
}

static int set_text(struct at *at, const char *key, const char *value, const char *otherwise, char *out, size_t cap)
{
	const char *v = value != NULL ? value : otherwise != NULL ? otherwise : "";

	if (span_cstr(span_str(v), out, cap) != 0)
		return wn_config_bad(at->file, at_key(at, key), "is %zu characters long; may be at most %zu", strlen(v), cap - 1);
	return 0;
}

static int set_number(struct at *at, const char *key, const uint32_t *value, uint32_t otherwise, uint32_t min, uint32_t max, uint32_t *out)
{
	*out = value != NULL ? *value : otherwise;
	if (*out < min || *out > max)
		return wn_config_bad(at->file, at_key(at, key), "is %u; must be a whole number from %u to %u", *out, min, max);
	return 0;
}

/* Via and Record-Route tell clients and agents where the front is: an address that names no host will not do. */
static int set_addr(struct at *at, const char *key, const char *value, const char *example, struct wn_addr *out)
{
	bool none = true;

	if (wn_addr_parse(span_str(value), -1, out) != 0 || out->port == 0)
		return wn_config_bad(at->file, at_key(at, key), "\"%.60s\" is no address and port; must be like %s", value, example);
	for (unsigned i = 0; i < sizeof(out->ip); i++)
		none = none && (out->ip[i] == 0 || (wn_addr_is4(out) && i < 12));
	if (none)
		return wn_config_bad(at->file, at_key(at, key), "\"%.60s\" names no host; must be the address that others reach, like %s",
				     value, example);
	return 0;
}

/* udp:, tcp: or tls: before an address; `may`: which, as a set of bits. */
static int set_address(struct at *at, const char *key, const char *value, unsigned may, const char *example, struct front_address *out)
{
	for (unsigned t = 0; t < FRONT_TRANSPORTS; t++) {
		const char *name = front_transport_name((enum front_transport)t);
		size_t n = strlen(name);

		if ((may & 1u << t) == 0 || strncmp(value, name, n) != 0 || value[n] != ':')
			continue;
		out->transport = (enum front_transport)t;
		return set_addr(at, key, value + n + 1, example + n + 1, &out->addr);
	}
	return wn_config_bad(at->file, at_key(at, key), "\"%.60s\" says no transport; must be like %s%s", value, example,
			     (may & 1u << FRONT_TLS) != 0 ? ", with udp, tcp or tls" : ", with udp or tcp");
}

static int set_domain(struct at *at, const char *value, char out[static DOMAIN_MAX + 1])
{
	size_t n = strlen(value);
	bool ok = n > 0 && n <= DOMAIN_MAX && value[0] != '.' && value[0] != '-' && value[n - 1] != '.';

	for (size_t i = 0; ok && i < n; i++) {
		out[i] = (char)tolower((unsigned char)value[i]);
		ok = isalnum((unsigned char)value[i]) || value[i] == '-' || value[i] == '.';
	}
	if (!ok)
		return wn_config_bad(
			at->file, at_key(at, "domain"),
			"\"%.60s\" is no domain name; must be letters, digits, '-' and '.', at most %d characters, like example.org", value,
			DOMAIN_MAX);
	out[n] = 0;
	return 0;
}

static int set_signing_key(struct at *at, const char *value, uint8_t out[static UPDATE_SIGN_PUBLIC])
{
	const char scheme[] = "ed25519:";
	struct span s = span_str(value);

	if (s.n <= sizeof(scheme) - 1 || memcmp(s.p, scheme, sizeof(scheme) - 1) != 0 ||
	    b64url_decode(span_of(s.p + sizeof(scheme) - 1, s.n - sizeof(scheme) + 1), out, UPDATE_SIGN_PUBLIC) != UPDATE_SIGN_PUBLIC ||
	    sodium_is_zero(out, UPDATE_SIGN_PUBLIC))
		return wn_config_bad(
			at->file, at_key(at, "signing_key"),
			"is no signing key; must be ed25519: and 43 characters of base64url, as `walnut keys show agent DIR` prints");
	return 0;
}

static int set_algorithms(struct at *at, const struct file_tenant *f, struct front_policy *out)
{
	char key[32];

	out->sha256 = f->algorithms_count == 0;
	for (uint32_t i = 0; i < f->algorithms_count; i++) {
		bool *b = NULL;

		if (strcmp(f->algorithms[i], "sha-256") == 0)
			b = &out->sha256;
		else if (strcmp(f->algorithms[i], "md5") == 0)
			b = &out->md5;
		if (b == NULL || *b) {
			snprintf(key, sizeof(key), "algorithms[%u]", i);
			return wn_config_bad(at->file, at_key(at, key), "\"%.40s\"; must be sha-256 or md5, each at most once",
					     f->algorithms[i]);
		}
		*b = true;
	}
	return 0;
}

/* Different services of a tenant may share a hop. */
static int set_route(struct at *at, const char *key, const char *value, struct front_tenant_config *out, unsigned *hop)
{
	struct front_address a;
	int r = set_address(at, key, value, 1u << FRONT_UDP | 1u << FRONT_TCP, "udp:192.0.2.7:5060", &a);

	if (r != 0)
		return r;
	for (*hop = 1; *hop <= out->nroutes; (*hop)++)
		if (out->route[*hop - 1].transport == a.transport && wn_addr_eq(&out->route[*hop - 1].addr, &a.addr))
			return 0;
	if (out->nroutes == FRONT_HOPS_MAX)
		return wn_config_bad(at->file, at_key(at, key), "is the %dth address; a front may have %d next hops", FRONT_HOPS_MAX + 1,
				     FRONT_HOPS_MAX);
	out->route[out->nroutes++] = a;
	return 0;
}

static int set_services(struct at *at, const struct file_tenant *f, struct front_tenant_config *out)
{
	struct front_policy *p = &out->policy;
	bool proof = out->has_agent;

	for (uint32_t i = 0; i < f->services_count; i++) {
		const struct file_service *from = &f->services[i];
		struct front_service *s = &p->service[i];
		char key[48];
		int r;

		snprintf(key, sizeof(key), "services[%u].name", i);
		if (strcmp(from->name, "*") != 0 && !user_name_valid(span_str(from->name)))
			return wn_config_bad(at->file, at_key(at, key),
					     "\"%.70s\" is no name of a service; must be 1 to 63 of A-Z a-z 0-9 . _ -, or *", from->name);
		for (uint32_t j = 0; j < i; j++)
			if (strcmp(p->service[j].name, from->name) == 0)
				return wn_config_bad(at->file, at_key(at, key), "\"%s\" stands twice; each service may stand once",
						     from->name);
		r = set_text(at, key, from->name, NULL, s->name, sizeof(s->name));
		snprintf(key, sizeof(key), "services[%u].route", i);
		if (r == 0)
			r = set_route(at, key, from->route, out, &s->hop);
		if (r != 0)
			return r;
		s->authenticate = from->authenticate == NULL || *from->authenticate;
		proof |= s->authenticate;
	}
	p->nservices = f->services_count;
	front_policy_sort(p);
	if (!out->has_agent && p->nservices == 0)
		return wn_config_bad(at->file, at_key(at, "agent_pin"),
				     "is missing; a tenant has an agent, or services with a route, or both");
	if (proof && f->signing_key == NULL)
		return wn_config_bad(at->file, at_key(at, "signing_key"), "is missing; without it no user can prove anything");
	return 0;
}

static int set_tenant(struct at *at, const struct file_tenant *f, struct front_tenant_config *out)
{
	int r = set_domain(at, f->domain, out->domain);

	out->has_agent = f->agent_pin != NULL;
	out->policy.agent = out->has_agent;
	if (r == 0 && out->has_agent &&
	    (peer_pin_parse(span_str(f->agent_pin), &out->agent_pin) != 0 ||
	     sodium_is_zero(out->agent_pin.sha256, sizeof(out->agent_pin.sha256))))
		r = wn_config_bad(at->file, at_key(at, "agent_pin"),
				  "is no pin; must be sha256: and 43 characters of base64url, as `walnut keys show agent DIR` prints");
	if (r == 0 && f->signing_key != NULL)
		r = set_signing_key(at, f->signing_key, out->signing_key);
	if (r == 0)
		r = set_algorithms(at, f, &out->policy);
	if (r == 0)
		r = set_number(at, "max_calls", f->max_calls, 10000, 1, CALLS_PER_TENANT_MAX, &out->policy.max_calls);
	if (r == 0)
		r = set_number(at, "user_calls_per_s", f->user_calls_per_s, 20, 0, RATE_MAX, &out->policy.user_calls_per_s);
	if (r == 0)
		r = set_number(at, "service_calls_per_s", f->service_calls_per_s, 2000, 0, RATE_MAX, &out->policy.service_calls_per_s);
	if (r == 0)
		r = set_services(at, f, out);
	return r;
}

/* Two tenants must differ in what tells them apart. */
static int check_distinct(struct at *at, const struct front_config *c, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		if (strcmp(c->tenant[i].domain, c->tenant[n].domain) == 0)
			return wn_config_bad(at->file, at_key(at, "domain"), "\"%s\" stands twice; each domain may stand once",
					     c->tenant[n].domain);
		if (c->tenant[n].has_agent && memcmp(&c->tenant[i].agent_pin, &c->tenant[n].agent_pin, sizeof(struct peer_pin)) == 0)
			return wn_config_bad(at->file, at_key(at, "agent_pin"), "is that of %s too; every tenant's agent has its own key",
					     c->tenant[i].domain);
	}
	return 0;
}

static int set_metrics(struct at *at, const char *value, struct wn_addr *out)
{
	static const uint8_t one[16] = {[15] = 1};

	if (wn_addr_parse(span_str(value), -1, out) != 0 || out->port == 0 ||
	    !((wn_addr_is4(out) && out->ip[12] == 127) || memcmp(out->ip, one, sizeof(one)) == 0))
		return wn_config_bad(at->file, at_key(at, "metrics"),
				     "\"%.60s\" is no loopback address and port; must be one, such as 127.0.0.1:9464", value);
	return 0;
}

static uint32_t online_cpus(void)
{
	cpu_set_t may;
	int n = sched_getaffinity(0, sizeof(may), &may) == 0 ? CPU_COUNT(&may) : 1;

	return n < 1 ? 1 : n > (int)FRONT_WORKERS_MAX ? FRONT_WORKERS_MAX : (uint32_t)n;
}

static int set_also_listen(struct at *at, const struct file_root *f, struct front_config *c)
{
	bool tls = false;

	for (uint32_t i = 0; i < f->also_listen_count; i++) {
		struct front_address *a = &c->also_listen[i];
		char key[32];
		int r;

		snprintf(key, sizeof(key), "also_listen[%u]", i);
		r = set_address(at, key, f->also_listen[i], 1u << FRONT_UDP | 1u << FRONT_TCP | 1u << FRONT_TLS, "tcp:198.51.100.2:5060",
				a);
		if (r != 0)
			return r;
		tls |= a->transport == FRONT_TLS;
		for (uint32_t j = 0; j <= i; j++)
			if ((j == i && a->transport == FRONT_UDP && wn_addr_eq(&a->addr, &c->listen)) ||
			    (j < i && (a->transport == FRONT_UDP) == (c->also_listen[j].transport == FRONT_UDP) &&
			     wn_addr_eq(&a->addr, &c->also_listen[j].addr)))
				return wn_config_bad(at->file, at_key(at, key), "\"%.60s\" is listened on already", f->also_listen[i]);
	}
	c->nalso = f->also_listen_count;
	if (tls && f->tls_certificate == NULL)
		return wn_config_bad(at->file, "tls_certificate", "is missing; a tls: listener needs a certificate and a key");
	if (tls && f->tls_key == NULL)
		return wn_config_bad(at->file, "tls_key", "is missing; a tls: listener needs a certificate and a key");
	return 0;
}

static int set_streams(struct at *at, const struct file_streams *given, struct front_config *c)
{
	static const struct file_streams none;
	const struct file_streams *f = given != NULL ? given : &none;
	struct front_stream_limits *l = &c->streams;
	const struct {
		const char *key;
		const uint32_t *value;
		uint32_t otherwise, min, max, unit, *out;
	} number[] = {
		{"max_connections", f->max_connections, 16384, 64, 1000000, 1, &l->connections},
		{"per_address", f->per_address, 256, 1, 65535, 1, &l->per_address},
		{"backlog", f->backlog, 512, 1, 65535, 1, &c->backlog},
		{"tls_handshakes", f->tls_handshakes, 256, 1, 1000000, 1, &l->handshakes},
		{"tls_handshakes_per_s", f->tls_handshakes_per_s, 400, 1, 1000000, 1, &l->handshakes_per_s},
		{"tls_handshake_s", f->tls_handshake_s, 5, 1, 3600, 1000, &l->due_ms[STREAM_DUE_HANDSHAKE]},
		{"first_message_s", f->first_message_s, 5, 1, 3600, 1000, &l->due_ms[STREAM_DUE_FIRST]},
		{"stranger_idle_s", f->stranger_idle_s, 10, 1, 3600, 1000, &l->due_ms[STREAM_DUE_STRANGER]},
		{"idle_s", f->idle_s, 600, 1, 86400, 1000, &l->due_ms[STREAM_DUE_TRUSTED]},
		{"stalled_s", f->stalled_s, 10, 1, 3600, 1000, &l->due_ms[STREAM_DUE_STALLED]},
	};
	int r = 0;

	snprintf(at->prefix, sizeof(at->prefix), "streams.");
	for (unsigned i = 0; r == 0 && i < sizeof(number) / sizeof(number[0]); i++) {
		r = set_number(at, number[i].key, number[i].value, number[i].otherwise, number[i].min, number[i].max, number[i].out);
		*number[i].out *= number[i].unit;
	}
	at->prefix[0] = 0;
	return r;
}

int front_config_parse(const char *file, const char *yaml, size_t n, struct front_config *out)
{
	struct at at = {.file = file};
	struct front_config c = {.ntenants = 0};
	struct file_root *f = NULL;
	int r = wn_config_load_text(file, yaml, n, &root, (void **)&f);

	if (r != 0)
		return r;
	r = set_addr(&at, "listen", f->listen, "198.51.100.2:5060", &c.listen);
	if (r == 0)
		r = set_also_listen(&at, f, &c);
	if (r == 0 && f->agents != NULL)
		r = set_addr(&at, "agents", f->agents, "198.51.100.2:7061", &c.agents);
	c.has_metrics = f->metrics != NULL;
	if (r == 0 && c.has_metrics)
		r = set_metrics(&at, f->metrics, &c.metrics);
	if (r == 0)
		r = set_streams(&at, f->streams, &c);
	if (r == 0)
		r = set_text(&at, "tls_certificate", f->tls_certificate, NULL, c.tls_certificate, sizeof(c.tls_certificate));
	if (r == 0)
		r = set_text(&at, "tls_key", f->tls_key, NULL, c.tls_key, sizeof(c.tls_key));
	if (r == 0)
		r = set_text(&at, "state", f->state, NULL, c.state, sizeof(c.state));
	if (r == 0)
		r = set_text(&at, "keys", f->keys, NULL, c.keys, sizeof(c.keys));
	if (r == 0)
		r = set_text(&at, "socket", f->socket, "/run/walnut/front.sock", c.socket, sizeof(c.socket));
	if (r == 0)
		r = set_text(&at, "user", f->user, "nobody", c.user, sizeof(c.user));
	if (r == 0)
		r = set_number(&at, "threads", f->threads, online_cpus(), 1, FRONT_WORKERS_MAX, &c.threads);
	if (r == 0)
		r = set_number(&at, "strangers_max", f->strangers_max, FRONT_STRANGERS, 16, STRANGERS_MAX, &c.strangers_max);
	if (r == 0)
		r = set_number(&at, "batch_wait_us", f->batch_wait_us, 500, 0, 10000, &c.batch_wait_us);
	if (r == 0)
		r = set_number(&at, "strangers_per_s", f->strangers_per_s, 0, 0, RATE_MAX, &c.strangers_per_s);
	if (r == 0)
		r = set_number(&at, "nonce_lifetime_s", f->nonce_lifetime_s, 30, 5, 3600, &c.nonce_lifetime_s);
	if (r == 0)
		r = set_number(&at, "nonce_ring_bits", f->nonce_ring_bits, 25, 10, 30, &c.nonce_ring_bits);
	if (r == 0)
		r = set_number(&at, "feed_max_age_s", f->feed_max_age_s, 60, 6, 86400, &c.feed_max_age_s);
	if (r == 0)
		r = set_number(&at, "drain_s", f->drain_s, 10, 0, 60, &c.drain_s);
	if (r != 0)
		goto out;
	c.tenant = calloc(f->tenants_count, sizeof(*c.tenant));
	if (c.tenant == NULL) {
		r = -ENOMEM;
		goto out;
	}
	for (; r == 0 && c.ntenants < f->tenants_count; c.ntenants++) {
		snprintf(at.prefix, sizeof(at.prefix), "tenants[%u].", c.ntenants);
		r = set_tenant(&at, &f->tenants[c.ntenants], &c.tenant[c.ntenants]);
		if (r == 0)
			r = check_distinct(&at, &c, c.ntenants);
		c.has_agents |= c.tenant[c.ntenants].has_agent;
	}
	at.prefix[0] = 0;
	if (r == 0 && c.has_agents && f->agents == NULL)
		r = wn_config_bad(file, "agents", "is missing; agents need an address and port to connect to, like 198.51.100.2:7061");
out:
	wn_config_free(&root, f);
	if (r != 0)
		front_config_free(&c);
	else
		*out = c;
	return r;
}

int front_config_load(const char *file, struct front_config *out)
{
	char *yaml;
	size_t n;
	int r = wn_config_read(file, &yaml, &n);

	if (r != 0)
		return r;
	r = front_config_parse(file, yaml, n, out);
	free(yaml);
	return r;
}

void front_config_free(struct front_config *c)
{
	free(c->tenant);
	c->tenant = NULL;
	c->ntenants = 0;
}

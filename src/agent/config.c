/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/config.h"

#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/b64.h"
#include "base/config.h"
#include "gate/record.h"

#define KEY_PATH_MAX 64

#define DEFAULT_SOCKET             "/run/walnut/agent.sock"
#define DEFAULT_USER               "nobody"
#define DEFAULT_EPOCH_S            86400
#define DEFAULT_HOLE_LIFETIME_S    1800
#define DEFAULT_HEARTBEAT_S        5
#define DEFAULT_PUBLISH_KEYS_PER_S 5000
#define DEFAULT_MAX_CALLS          16384
#define DEFAULT_IDLE_TCP_S         7440 /* RFC 5382 REQ-5 */
#define DEFAULT_IDLE_UDP_S         300  /* RFC 4787 REQ-5 */

/* As it stands in the file; optional numbers are pointers, because 0 means something. */
struct file_service {
	char *name;
	int protocol;
	char *address;
	char **users;
	unsigned users_count;
	uint64_t *bytes_per_s;
	uint32_t *packets_per_s, *idle_s;
};

struct file_peer {
	char *address, *pin;
};

struct file_config {
	char *domain, *keys, *database, *socket, *user;
	uint32_t *epoch_s, *hole_lifetime_s, *heartbeat_s, *publish_keys_per_s, *max_calls, *user_packets_per_s;
	uint64_t *user_bytes_per_s;
	char **enrol_fronts;
	unsigned enrol_fronts_count;
	struct file_peer gate;
	struct file_peer *fronts;
	unsigned fronts_count;
	struct file_service *services;
	unsigned services_count;
};

static const cyaml_strval_t protocols[] = {{"tcp", IPPROTO_TCP}, {"udp", IPPROTO_UDP}};

static const cyaml_schema_value_t text_entry = {CYAML_VALUE_STRING(CYAML_FLAG_POINTER, char, 1, 255)};

static const cyaml_schema_field_t service_fields[] = {
	CYAML_FIELD_STRING_PTR("name", CYAML_FLAG_POINTER, struct file_service, name, 1, 63),
	CYAML_FIELD_ENUM("protocol", CYAML_FLAG_STRICT, struct file_service, protocol, protocols, CYAML_ARRAY_LEN(protocols)),
	CYAML_FIELD_STRING_PTR("address", CYAML_FLAG_POINTER, struct file_service, address, 1, 255),
	CYAML_FIELD_SEQUENCE("users", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct file_service, users, &text_entry, 1,
			     CYAML_UNLIMITED),
	CYAML_FIELD_UINT_PTR("bytes_per_s", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct file_service, bytes_per_s),
	CYAML_FIELD_UINT_PTR("packets_per_s", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct file_service, packets_per_s),
	CYAML_FIELD_UINT_PTR("idle_s", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct file_service, idle_s),
	CYAML_FIELD_END,
};

static const cyaml_schema_field_t peer_fields[] = {
	CYAML_FIELD_STRING_PTR("address", CYAML_FLAG_POINTER, struct file_peer, address, 1, 255),
	CYAML_FIELD_STRING_PTR("pin", CYAML_FLAG_POINTER, struct file_peer, pin, 1, 255),
	CYAML_FIELD_END,
};

static const cyaml_schema_value_t service_entry = {CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct file_service, service_fields)};
static const cyaml_schema_value_t peer_entry = {CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct file_peer, peer_fields)};

#define OPTIONAL_UINT(key, member) CYAML_FIELD_UINT_PTR(key, CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct file_config, member)

static const cyaml_schema_field_t top_fields[] = {
	CYAML_FIELD_STRING_PTR("domain", CYAML_FLAG_POINTER, struct file_config, domain, 1, DOMAIN_MAX),
	CYAML_FIELD_STRING_PTR("keys", CYAML_FLAG_POINTER, struct file_config, keys, 1, 4000),
	CYAML_FIELD_STRING_PTR("database", CYAML_FLAG_POINTER, struct file_config, database, 1, 4000),
	CYAML_FIELD_STRING_PTR("socket", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct file_config, socket, 1, 100),
	CYAML_FIELD_STRING_PTR("user", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct file_config, user, 1, 63),
	OPTIONAL_UINT("epoch_s", epoch_s),
	OPTIONAL_UINT("hole_lifetime_s", hole_lifetime_s),
	OPTIONAL_UINT("heartbeat_s", heartbeat_s),
	OPTIONAL_UINT("publish_keys_per_s", publish_keys_per_s),
	OPTIONAL_UINT("max_calls", max_calls),
	OPTIONAL_UINT("user_bytes_per_s", user_bytes_per_s),
	OPTIONAL_UINT("user_packets_per_s", user_packets_per_s),
	CYAML_FIELD_SEQUENCE("enrol_fronts", CYAML_FLAG_POINTER, struct file_config, enrol_fronts, &text_entry, 1, AGENT_FRONTS_MAX),
	CYAML_FIELD_MAPPING("gate", CYAML_FLAG_DEFAULT, struct file_config, gate, peer_fields),
	CYAML_FIELD_SEQUENCE("fronts", CYAML_FLAG_POINTER, struct file_config, fronts, &peer_entry, 1, AGENT_FRONTS_MAX),
	CYAML_FIELD_SEQUENCE("services", CYAML_FLAG_POINTER, struct file_config, services, &service_entry, 1, AGENT_SERVICES_MAX),
	CYAML_FIELD_END,
};

static const cyaml_schema_value_t top = {CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct file_config, top_fields)};

static int parse_addr(const char *file, const char *key, const char *text, struct wn_addr *out)
{
	if (wn_addr_parse(span_str(text), -1, out) < 0 || out->port == 0)
		return wn_config_bad(file, key, "\"%s\" is not an address and port, such as 198.18.1.2:7061 or [2001:db8::1]:7061", text);
	return 0;
}

static int parse_peer(const char *file, const char *key, const struct file_peer *in, struct agent_peer *out)
{
	char path[KEY_PATH_MAX];

	snprintf(path, sizeof(path), "%s.address", key);
	if (parse_addr(file, path, in->address, &out->addr) < 0)
		return -EINVAL;
	snprintf(path, sizeof(path), "%s.pin", key);
	if (peer_pin_parse(span_str(in->pin), &out->pin) < 0)
		return wn_config_bad(file, path, "\"%s\" is not a pin; \"walnut keys show\" on that machine prints it (sha256:…)", in->pin);
	return 0;
}

static bool domain_valid(const char *d)
{
	size_t n = strlen(d);

	if (n == 0 || n > DOMAIN_MAX || d[0] == '.' || d[0] == '-' || d[n - 1] == '.' || d[n - 1] == '-')
		return false;
	return strspn(d, "abcdefghijklmnopqrstuvwxyz0123456789.-") == n && strstr(d, "..") == NULL;
}

static int parse_number(const char *file, const char *key, const uint32_t *in, uint32_t fallback, uint32_t min, uint32_t max, uint32_t *out)
{
	*out = in != NULL ? *in : fallback;
	if (*out < min || *out > max)
		return wn_config_bad(file, key, "%u is out of range; %u to %u would be right", *out, min, max);
	return 0;
}

static int parse_bytes(const char *file, const char *key, const uint64_t *in, uint64_t *out)
{
	*out = in != NULL ? *in : 0;
	if (*out > GATE_BYTES_PER_S_MAX)
		return wn_config_bad(file, key, "is out of range; 0 (no limit) to 1000000000000 would be right");
	return 0;
}

static int parse_users(const char *file, unsigned i, const struct file_service *in, struct agent_service *out)
{
	char path[KEY_PATH_MAX];

	if (in->users_count == 0)
		return 0;
	out->users = calloc(in->users_count, sizeof(*out->users));
	if (out->users == NULL)
		return -ENOMEM;
	for (unsigned k = 0; k < in->users_count; k++) {
		snprintf(path, sizeof(path), "services[%u].users[%u]", i, k);
		if (!user_name_valid(span_str(in->users[k])))
			return wn_config_bad(file, path, "\"%s\" is not a user's name; 1 to 63 of A-Z a-z 0-9 . _ - would be right",
					     in->users[k]);
		out->users[k] = strdup(in->users[k]);
		if (out->users[k] == NULL)
			return -ENOMEM;
		out->nusers++;
	}
	return 0;
}

static int parse_service(const char *file, unsigned i, const struct file_config *f, struct agent_service *out)
{
	const struct file_service *in = &f->services[i];
	char path[KEY_PATH_MAX];
	int rc;

	snprintf(path, sizeof(path), "services[%u].name", i);
	if (!user_name_valid(span_str(in->name)))
		return wn_config_bad(file, path, "\"%s\" is not a service's name; 1 to 63 of A-Z a-z 0-9 . _ - would be right", in->name);
	for (unsigned k = 0; k < i; k++) {
		if (strcmp(f->services[k].name, in->name) == 0)
			return wn_config_bad(file, path, "\"%s\" is there twice; each service needs a name of its own", in->name);
	}
	out->name = strdup(in->name);
	if (out->name == NULL)
		return -ENOMEM;
	out->proto = (uint8_t)in->protocol;

	snprintf(path, sizeof(path), "services[%u].address", i);
	rc = parse_addr(file, path, in->address, &out->inside);
	if (rc < 0)
		return rc;
	rc = parse_users(file, i, in, out);
	if (rc < 0)
		return rc;

	snprintf(path, sizeof(path), "services[%u].bytes_per_s", i);
	rc = parse_bytes(file, path, in->bytes_per_s, &out->bytes_per_s);
	if (rc < 0)
		return rc;
	snprintf(path, sizeof(path), "services[%u].packets_per_s", i);
	rc = parse_number(file, path, in->packets_per_s, 0, 0, GATE_PACKETS_PER_S_MAX, &out->packets_per_s);
	if (rc < 0)
		return rc;
	snprintf(path, sizeof(path), "services[%u].idle_s", i);
	return parse_number(file, path, in->idle_s, out->proto == IPPROTO_TCP ? DEFAULT_IDLE_TCP_S : DEFAULT_IDLE_UDP_S, 0, 86400,
			    &out->idle_s);
}

static int parse_lists(const char *file, const struct file_config *f, struct agent_config *out)
{
	char path[KEY_PATH_MAX];
	int rc;

	out->enrol_fronts = calloc(f->enrol_fronts_count, sizeof(*out->enrol_fronts));
	out->fronts = calloc(f->fronts_count, sizeof(*out->fronts));
	out->services = calloc(f->services_count, sizeof(*out->services));
	if (out->enrol_fronts == NULL || out->fronts == NULL || out->services == NULL)
		return -ENOMEM;

	for (; out->nenrol_fronts < f->enrol_fronts_count; out->nenrol_fronts++) {
		snprintf(path, sizeof(path), "enrol_fronts[%u]", out->nenrol_fronts);
		rc = parse_addr(file, path, f->enrol_fronts[out->nenrol_fronts], &out->enrol_fronts[out->nenrol_fronts]);
		if (rc < 0)
			return rc;
	}
	for (; out->nfronts < f->fronts_count; out->nfronts++) {
		snprintf(path, sizeof(path), "fronts[%u]", out->nfronts);
		rc = parse_peer(file, path, &f->fronts[out->nfronts], &out->fronts[out->nfronts]);
		if (rc < 0)
			return rc;
		for (unsigned k = 0; k < out->nfronts; k++) {
			if (wn_addr_eq(&out->fronts[k].addr, &out->fronts[out->nfronts].addr)) {
				snprintf(path, sizeof(path), "fronts[%u].address", out->nfronts);
				return wn_config_bad(file, path, "is there twice; each front once would be right");
			}
		}
	}
	while (out->nservices < f->services_count) {
		/* Counted first, so that what a failure leaves behind is freed. */
		unsigned i = out->nservices++;

		rc = parse_service(file, i, f, &out->services[i]);
		if (rc < 0)
			return rc;
	}
	return 0;
}

static int parse_all(const char *file, const struct file_config *f, struct agent_config *out)
{
	int rc;

	if (!domain_valid(f->domain))
		return wn_config_bad(file, "domain", "\"%s\" is not a domain in lower case, such as example.org", f->domain);
	out->file = strdup(file);
	out->domain = strdup(f->domain);
	out->keys = strdup(f->keys);
	out->database = strdup(f->database);
	out->socket = strdup(f->socket != NULL ? f->socket : DEFAULT_SOCKET);
	out->user = strdup(f->user != NULL ? f->user : DEFAULT_USER);
	if (out->file == NULL || out->domain == NULL || out->keys == NULL || out->database == NULL || out->socket == NULL ||
	    out->user == NULL)
		return -ENOMEM;

	out->epoch_s = f->epoch_s != NULL ? *f->epoch_s : DEFAULT_EPOCH_S;
	if (out->epoch_s != 0 && (out->epoch_s < 2 || out->epoch_s > 31536000))
		return wn_config_bad(file, "epoch_s", "%u is out of range; 0 (off) or 2 to 31536000 seconds would be right", out->epoch_s);
	rc = parse_number(file, "hole_lifetime_s", f->hole_lifetime_s, DEFAULT_HOLE_LIFETIME_S, 2, 86400, &out->hole_lifetime_s);
	if (rc == 0)
		rc = parse_number(file, "heartbeat_s", f->heartbeat_s, DEFAULT_HEARTBEAT_S, 1, 300, &out->heartbeat_s);
	if (rc == 0)
		rc = parse_number(file, "publish_keys_per_s", f->publish_keys_per_s, DEFAULT_PUBLISH_KEYS_PER_S, 10, 100000000,
				  &out->publish_keys_per_s);
	if (rc == 0)
		rc = parse_number(file, "max_calls", f->max_calls, DEFAULT_MAX_CALLS, 1, 1000000, &out->max_calls);
	if (rc == 0)
		rc = parse_bytes(file, "user_bytes_per_s", f->user_bytes_per_s, &out->user_bytes_per_s);
	if (rc == 0)
		rc = parse_number(file, "user_packets_per_s", f->user_packets_per_s, 0, 0, GATE_PACKETS_PER_S_MAX,
				  &out->user_packets_per_s);
	if (rc == 0)
		rc = parse_peer(file, "gate", &f->gate, &out->gate);
	if (rc == 0)
		rc = parse_lists(file, f, out);
	return rc;
}

int agent_config_load(const char *file, struct agent_config *out)
{
	void *raw = NULL;
	int rc;

	memset(out, 0, sizeof(*out));
	rc = wn_config_load(file, &top, &raw);
	if (rc < 0)
		return rc;
	rc = parse_all(file, raw, out);
	wn_config_free(&top, raw);
	if (rc == -ENOMEM)
		fprintf(stderr, "%s: out of memory\n", file);
	if (rc < 0)
		agent_config_free(out);
	return rc;
}

void agent_config_free(struct agent_config *c)
{
	for (unsigned i = 0; i < c->nservices; i++) {
		for (unsigned k = 0; k < c->services[i].nusers; k++)
			free(c->services[i].users[k]);
		free(c->services[i].users);
		free(c->services[i].name);
	}
	free(c->services);
	free(c->fronts);
	free(c->enrol_fronts);
	free(c->file);
	free(c->domain);
	free(c->keys);
	free(c->database);
	free(c->socket);
	free(c->user);
	memset(c, 0, sizeof(*c));
}

static int read_key(const struct agent_config *c, const char *name, const char *what, uint8_t *out, size_t n)
{
	char path[4096], text[128];
	ssize_t len;
	long got;

	if (snprintf(path, sizeof(path), "%s/%s", c->keys, name) >= (int)sizeof(path)) {
		fprintf(stderr, "%s: the path of the keys is too long\n", c->keys);
		return -ENAMETOOLONG;
	}
	len = wn_secret_read(path, text, sizeof(text));
	if (len < 0)
		return (int)len;
	while (len > 0 && (text[len - 1] == '\n' || text[len - 1] == '\r'))
		len--;
	got = b64url_decode(span_of(text, (size_t)len), out, n);
	sodium_memzero(text, sizeof(text));
	if (got != (long)n) {
		fprintf(stderr, "%s: is not %s (%zu bytes in base64url); \"walnut keys init agent %s\" makes one\n", path, what, n,
			c->keys);
		return -EINVAL;
	}
	return 0;
}

int agent_secrets_load(const struct agent_config *c, struct agent_secrets *out)
{
	int rc = read_key(c, "tenant.sign", "the tenant's signing key", out->sign, sizeof(out->sign));

	if (rc == 0)
		rc = read_key(c, "tenant.route", "the tenant's route key", out->route, sizeof(out->route));
	return rc;
}

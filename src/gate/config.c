/* SPDX-License-Identifier: Apache-2.0 */
#include "gate/config.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/config.h"
#include "gate/record.h"

#define TABLE_MIN 64u
#define TABLE_MAX 16777216u

/* The file as libcyaml hands it over; optional numbers are pointers, so that an explicit 0 is seen. */
struct file_outside {
	char *interface, *ports;
	char **addresses;
	uint32_t addresses_count;
};

struct file_tenant {
	char *name, *agent_pin;
	char **prefixes;
	uint32_t prefixes_count;
	uint32_t *holes;
};

struct file_root {
	struct file_outside outside;
	struct {
		char *interface;
	} inside;
	char **protected;
	uint32_t protected_count;
	char *control, *keys, *socket, *state, *user, *metrics, *mode;
	uint32_t *flows, *mappings, *holes;
	struct file_tenant *tenants;
	uint32_t tenants_count;
};

static const cyaml_schema_value_t text = {CYAML_VALUE_STRING(CYAML_FLAG_POINTER, char, 1, 255)};

static const cyaml_schema_field_t outside_fields[] = {
	CYAML_FIELD_STRING_PTR("interface", CYAML_FLAG_POINTER, struct file_outside, interface, 1, 255),
	CYAML_FIELD_SEQUENCE("addresses", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct file_outside, addresses, &text, 1,
			     GATE_PUBLIC_MAX),
	CYAML_FIELD_STRING_PTR("ports", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct file_outside, ports, 1, 255),
	CYAML_FIELD_END,
};

static const cyaml_schema_field_t inside_fields[] = {
	CYAML_FIELD_STRING_PTR("interface", CYAML_FLAG_POINTER, __typeof__(((struct file_root *)NULL)->inside), interface, 1, 255),
	CYAML_FIELD_END,
};

static const cyaml_schema_field_t tenant_fields[] = {
	CYAML_FIELD_STRING_PTR("name", CYAML_FLAG_POINTER, struct file_tenant, name, 1, 255),
	CYAML_FIELD_STRING_PTR("agent_pin", CYAML_FLAG_POINTER, struct file_tenant, agent_pin, 1, 255),
	CYAML_FIELD_SEQUENCE("prefixes", CYAML_FLAG_POINTER, struct file_tenant, prefixes, &text, 1, GATE_PREFIXES_MAX),
	CYAML_FIELD_UINT_PTR("holes", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct file_tenant, holes),
	CYAML_FIELD_END,
};

static const cyaml_schema_value_t tenant_entry = {CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct file_tenant, tenant_fields)};

static const cyaml_schema_field_t root_fields[] = {
	CYAML_FIELD_MAPPING("outside", CYAML_FLAG_DEFAULT, struct file_root, outside, outside_fields),
	CYAML_FIELD_MAPPING("inside", CYAML_FLAG_DEFAULT, struct file_root, inside, inside_fields),
	CYAML_FIELD_SEQUENCE("protected", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct file_root, protected, &text, 1,
			     2 * GATE_PUBLIC_MAX),
	CYAML_FIELD_STRING_PTR("control", CYAML_FLAG_POINTER, struct file_root, control, 1, 255),
	CYAML_FIELD_STRING_PTR("keys", CYAML_FLAG_POINTER, struct file_root, keys, 1, 255),
	CYAML_FIELD_STRING_PTR("socket", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct file_root, socket, 1, 255),
	CYAML_FIELD_STRING_PTR("state", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct file_root, state, 1, 255),
	CYAML_FIELD_STRING_PTR("user", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct file_root, user, 1, 255),
	CYAML_FIELD_STRING_PTR("metrics", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct file_root, metrics, 1, 255),
	CYAML_FIELD_STRING_PTR("mode", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct file_root, mode, 1, 255),
	CYAML_FIELD_UINT_PTR("flows", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct file_root, flows),
	CYAML_FIELD_UINT_PTR("mappings", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct file_root, mappings),
	CYAML_FIELD_UINT_PTR("holes", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct file_root, holes),
	CYAML_FIELD_SEQUENCE("tenants", CYAML_FLAG_POINTER, struct file_root, tenants, &tenant_entry, 1, GATE_TENANTS_MAX),
	CYAML_FIELD_END,
};

static const cyaml_schema_value_t root = {CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct file_root, root_fields)};

/* Where an error is. */
struct at {
	const char *file;
	char key[64];
};

static int set_text(struct at *at, const char *key, const char *value, const char *otherwise, char *out, size_t cap)
{
	const char *v = value != NULL ? value : otherwise;

	if (span_cstr(span_str(v), out, cap) != 0)
		return wn_config_bad(at->file, key, "is %zu characters long; may be at most %zu", strlen(v), cap - 1);
	return 0;
}

/* What the kernel takes for a device's name. */
static int set_interface(struct at *at, const char *key, const char *value, char out[static 16])
{
	size_t n = strlen(value);
	bool ok = n < 16 && strcmp(value, ".") != 0 && strcmp(value, "..") != 0;

	for (size_t i = 0; i < n && ok; i++)
		ok = value[i] > ' ' && value[i] < 0x7f && value[i] != '/' && value[i] != ':';
	if (!ok)
		return wn_config_bad(at->file, key,
				     "\"%.40s\" is no interface name; must be 1 to 15 characters without space, / or :", value);
	memcpy(out, value, n + 1);
	return 0;
}

static int set_number(struct at *at, const char *key, const uint32_t *value, uint32_t otherwise, uint32_t min, uint32_t max, uint32_t *out)
{
	*out = value != NULL ? *value : otherwise;
	if (*out < min || *out > max)
		return wn_config_bad(at->file, key, "is %u; must be a whole number from %u to %u", *out, min, max);
	return 0;
}

static int set_ports(struct at *at, const char *value, struct gate_config *out)
{
	unsigned long long low, high;
	const char *dash;

	if (value == NULL)
		value = "1024-65535";
	dash = strchr(value, '-');
	if (dash == NULL || span_u64(span_of(value, (size_t)(dash - value)), 65535, &low) != 0 ||
	    span_u64(span_str(dash + 1), 65535, &high) != 0 || low == 0)
		return wn_config_bad(at->file, "outside.ports",
				     "\"%.40s\" is no range; must be LOW-HIGH within 1-65535, such as 1024-65535", value);
	if (low > high)
		return wn_config_bad(at->file, "outside.ports", "the range %llu-%llu is inverted; must be %llu-%llu", low, high, high, low);
	out->port_low = (uint16_t)low;
	out->port_high = (uint16_t)high;
	return 0;
}

static bool unicast4(const struct wn_addr *a)
{
	return wn_addr_is4(a) && a->ip[12] != 0 && a->ip[12] != 127 && a->ip[12] < 224;
}

/* Neither ::/16, which has the unspecified, the loopback and the mapped ones, nor link-local, nor multicast. */
static bool unicast6(const uint8_t ip[static 16])
{
	return (ip[0] != 0 || ip[1] != 0) && ip[0] != 0xff && !(ip[0] == 0xfe && (ip[1] & 0xc0) == 0x80);
}

static bool unicast(const struct wn_addr *a)
{
	return wn_addr_is4(a) ? unicast4(a) : unicast6(a->ip);
}

static bool is_public(const struct gate_config *c, const struct wn_addr *a)
{
	for (unsigned i = 0; i < c->npublic; i++)
		if (wn_ip_eq(a, &c->public[i]))
			return true;
	for (unsigned i = 0; i < c->nprotected6; i++)
		if (wn_ip_eq(a, &c->protected6[i]))
			return true;
	return false;
}

static int set_outside(struct at *at, const struct file_outside *f, struct gate_config *out)
{
	struct wn_addr a;
	int rc;

	rc = set_interface(at, "outside.interface", f->interface, out->outside);
	for (uint32_t i = 0; i < f->addresses_count && rc == 0; i++) {
		snprintf(at->key, sizeof(at->key), "outside.addresses[%u]", i);
		if (wn_ip_parse(span_str(f->addresses[i]), &a) != 0 || !unicast4(&a))
			rc = wn_config_bad(at->file, at->key, "\"%.40s\" is no public IPv4 address; must be one, such as 192.0.2.7",
					   f->addresses[i]);
		else if (is_public(out, &a))
			rc = wn_config_bad(at->file, at->key, "%s is given twice; keep one", f->addresses[i]);
		else
			out->public[out->npublic++] = a;
	}
	if (rc == 0 && f->ports != NULL && out->npublic == 0)
		rc = wn_config_bad(at->file, "outside.ports", "goes with outside.addresses only: protected addresses keep their ports");
	if (rc == 0)
		rc = set_ports(at, f->ports, out);
	return rc;
}

static int set_protected(struct at *at, const struct file_root *f, struct gate_config *out)
{
	const bool translated = out->npublic != 0;
	struct wn_addr a;
	unsigned *n;

	for (uint32_t i = 0; i < f->protected_count; i++) {
		snprintf(at->key, sizeof(at->key), "protected[%u]", i);
		if (wn_ip_parse(span_str(f->protected[i]), &a) != 0 || !unicast(&a))
			return wn_config_bad(at->file, at->key,
					     "\"%.40s\" is no address of a service; must be one, such as 192.0.2.7 or 2001:db8::7",
					     f->protected[i]);
		if (wn_addr_is4(&a) && translated)
			return wn_config_bad(
				at->file, at->key,
				"%s is IPv4, which outside.addresses has translated; IPv4 addresses may stand in one of the two",
				f->protected[i]);
		if (is_public(out, &a))
			return wn_config_bad(at->file, at->key, "%s is given twice; keep one", f->protected[i]);
		n = wn_addr_is4(&a) ? &out->npublic : &out->nprotected6;
		if (*n == GATE_PUBLIC_MAX)
			return wn_config_bad(at->file, at->key, "is one too many; may be %d of each family", GATE_PUBLIC_MAX);
		*(wn_addr_is4(&a) ? &out->public[*n] : &out->protected6[*n]) = a;
		(*n)++;
	}
	out->firewall = !translated && out->npublic != 0;
	if (out->npublic == 0 && out->nprotected6 == 0)
		return wn_config_bad(
			at->file, "outside.addresses",
			"is missing, and protected too; must be public IPv4 addresses to translate to, or protected the services' own");
	return 0;
}

/* Only who may send from a protected address can have a service there. */
static int check_protected(struct at *at, const struct file_root *f, const struct gate_config *c)
{
	struct wn_addr a;
	bool covered;

	for (uint32_t i = 0; i < f->protected_count; i++) {
		covered = false;
		wn_ip_parse(span_str(f->protected[i]), &a);
		for (unsigned t = 0; t < c->ntenant; t++)
			for (unsigned k = 0; k < c->tenant[t].nprefix; k++)
				covered = covered || wn_prefix_has(&c->tenant[t].prefix[k], &a);
		snprintf(at->key, sizeof(at->key), "protected[%u]", i);
		if (!covered)
			return wn_config_bad(at->file, at->key, "%s is in no tenant's prefixes; must be in one", f->protected[i]);
	}
	return 0;
}

static int set_control(struct at *at, const char *value, struct gate_config *out)
{
	if (wn_addr_parse(span_str(value), GATE_CONTROL_PORT, &out->control) != 0 || out->control.port == 0 || !unicast(&out->control))
		return wn_config_bad(
			at->file, "control",
			"\"%.60s\" is no address and port; must be the gate's inside address, such as 192.0.2.1:%d or [2001:db8::1]:%d",
			value, GATE_CONTROL_PORT, GATE_CONTROL_PORT);
	if (is_public(out, &out->control))
		return wn_config_bad(at->file, "control", "%.60s is one of %s; must be an address of the gate's own on the inside", value,
				     wn_addr_is4(&out->control) && !out->firewall ? "outside.addresses" : "protected");
	return 0;
}

static int set_metrics(struct at *at, const char *value, struct gate_config *out)
{
	static const uint8_t one[16] = {[15] = 1};
	struct wn_addr *a = &out->metrics;

	if (value == NULL)
		return 0;
	if (wn_addr_parse(span_str(value), -1, a) != 0 || a->port == 0 ||
	    !((wn_addr_is4(a) && a->ip[12] == 127) || memcmp(a->ip, one, sizeof(one)) == 0))
		return wn_config_bad(at->file, "metrics", "\"%.60s\" is no loopback address and port; must be one, such as 127.0.0.1:9443",
				     value);
	return 0;
}

static int set_mode(struct at *at, const char *value, struct gate_config *out)
{
	static const char *const name[] = {[GATE_MODE_AUTO] = "auto", [GATE_MODE_NATIVE] = "native", [GATE_MODE_GENERIC] = "generic"};

	out->mode = GATE_MODE_AUTO;
	for (unsigned i = 0; value != NULL; i++) {
		if (i == sizeof(name) / sizeof(name[0]))
			return wn_config_bad(at->file, "mode", "\"%.40s\" is no mode; must be auto, native or generic", value);
		if (strcmp(value, name[i]) == 0) {
			out->mode = (enum gate_mode)i;
			break;
		}
	}
	return 0;
}

static bool overlap(const struct wn_prefix *p, const struct wn_prefix *q)
{
	const struct wn_prefix *wide = p->bits < q->bits ? p : q, *narrow = wide == p ? q : p;
	struct wn_addr a = {.port = 0};

	memcpy(a.ip, narrow->ip, sizeof(a.ip));
	return wn_prefix_has(wide, &a);
}

static int set_prefix(struct at *at, const char *value, unsigned tenant, unsigned index, struct gate_config *out)
{
	struct wn_prefix *p = &out->tenant[tenant].prefix[index];
	const struct gate_tenant *other;

	snprintf(at->key, sizeof(at->key), "tenants[%u].prefixes[%u]", tenant, index);
	/* An IPv4 prefix has 96 bits before its own. */
	if (wn_prefix_parse(span_str(value), p) != 0 || (strchr(value, ':') == NULL ? p->bits < 96 + 8 : p->bits < 16 || !unicast6(p->ip)))
		return wn_config_bad(
			at->file, at->key,
			"\"%.40s\" is no prefix; must be ADDRESS/8 to ADDRESS/32, or IPv6 ADDRESS/16 to ADDRESS/128, with zero "
			"bits after it, such as 192.0.2.0/24",
			value);
	for (unsigned t = 0; t <= tenant; t++) {
		other = &out->tenant[t];
		for (unsigned i = 0; i < (t == tenant ? index : other->nprefix); i++)
			if (overlap(p, &other->prefix[i]))
				return wn_config_bad(at->file, at->key,
						     "%s overlaps prefixes[%u] of tenant \"%s\"; each address must belong to one", value, i,
						     other->name);
	}
	for (unsigned i = 0; i < out->npublic && !out->firewall; i++)
		if (wn_prefix_has(p, &out->public[i]))
			return wn_config_bad(at->file, at->key, "%s holds one of outside.addresses; must be inside addresses only", value);
	return 0;
}

static bool name_ok(const char *name)
{
	return strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_") == strlen(name);
}

static int set_tenant(struct at *at, const struct file_tenant *f, unsigned t, struct gate_config *out)
{
	struct gate_tenant *g = &out->tenant[t];
	int rc;

	snprintf(at->key, sizeof(at->key), "tenants[%u].name", t);
	rc = set_text(at, at->key, f->name, "", g->name, sizeof(g->name));
	if (rc == 0 && !name_ok(g->name))
		rc = wn_config_bad(at->file, at->key, "\"%s\" is no domain name; must be letters, digits, dots and hyphens", g->name);
	for (unsigned i = 0; i < t && rc == 0; i++)
		if (strcasecmp(g->name, out->tenant[i].name) == 0)
			rc = wn_config_bad(at->file, at->key, "\"%s\" is also the name of tenants[%u]; each must have its own", g->name, i);
	if (rc < 0)
		return rc;

	snprintf(at->key, sizeof(at->key), "tenants[%u].agent_pin", t);
	if (peer_pin_parse(span_str(f->agent_pin), &g->agent) != 0)
		return wn_config_bad(at->file, at->key,
				     "is no pin; must be \"sha256:\" and 43 characters, as `walnut keys show agent DIR` prints it");
	for (unsigned i = 0; i < t; i++)
		if (memcmp(g->agent.sha256, out->tenant[i].agent.sha256, PEER_PIN_BYTES) == 0)
			return wn_config_bad(at->file, at->key, "is also the pin of tenant \"%s\"; each must have its own",
					     out->tenant[i].name);

	for (uint32_t i = 0; i < f->prefixes_count && rc == 0; i++)
		rc = set_prefix(at, f->prefixes[i], t, i, out);
	g->nprefix = f->prefixes_count;
	if (rc == 0) {
		snprintf(at->key, sizeof(at->key), "tenants[%u].holes", t);
		rc = set_number(at, at->key, f->holes, out->holes, 1, out->holes, &g->holes);
	}
	return rc;
}

static int take(const char *file, const struct file_root *f, struct gate_config *out)
{
	struct at at = {.file = file};
	int rc;

	rc = set_outside(&at, &f->outside, out);
	if (rc == 0)
		rc = set_interface(&at, "inside.interface", f->inside.interface, out->inside);
	if (rc == 0 && strcmp(out->inside, out->outside) == 0)
		rc = wn_config_bad(file, "inside.interface", "\"%s\" is also outside.interface; must be another one", out->inside);
	if (rc == 0)
		rc = set_protected(&at, f, out);
	if (rc == 0)
		rc = set_control(&at, f->control, out);
	if (rc == 0)
		rc = set_text(&at, "keys", f->keys, "", out->keys, sizeof(out->keys));
	if (rc == 0)
		rc = set_text(&at, "socket", f->socket, GATE_SOCKET, out->socket, sizeof(out->socket));
	if (rc == 0)
		rc = set_text(&at, "state", f->state, GATE_STATE, out->state, sizeof(out->state));
	if (rc == 0 && out->state[0] != '/')
		rc = wn_config_bad(file, "state", "\"%s\" is no absolute path; must be a folder on a bpf file system, such as %s",
				   out->state, GATE_STATE);
	if (rc == 0)
		rc = set_text(&at, "user", f->user, "nobody", out->user, sizeof(out->user));
	if (rc == 0 && strcmp(out->user, "root") == 0)
		rc = wn_config_bad(file, "user", "is root; must be a user without rights, such as nobody");
	if (rc == 0)
		rc = set_metrics(&at, f->metrics, out);
	if (rc == 0)
		rc = set_mode(&at, f->mode, out);
	if (rc == 0)
		rc = set_number(&at, "flows", f->flows, 65536, TABLE_MIN, TABLE_MAX, &out->flows);
	if (rc == 0)
		rc = set_number(&at, "mappings", f->mappings, 65536, TABLE_MIN, TABLE_MAX, &out->mappings);
	if (rc == 0)
		rc = set_number(&at, "holes", f->holes, 16384, TABLE_MIN, TABLE_MAX, &out->holes);
	for (uint32_t i = 0; i < f->tenants_count && rc == 0; i++)
		rc = set_tenant(&at, &f->tenants[i], i, out);
	out->ntenant = f->tenants_count;
	return rc == 0 ? check_protected(&at, f, out) : rc;
}

int gate_config_load(const char *file, struct gate_config *out)
{
	void *data = NULL;
	int rc;

	memset(out, 0, sizeof(*out));
	rc = wn_config_load(file, &root, &data);
	if (rc < 0)
		return rc;
	rc = take(file, data, out);
	wn_config_free(&root, data);
	return rc;
}

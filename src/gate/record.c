/* SPDX-License-Identifier: Apache-2.0 */
#include "gate/record.h"

#include <errno.h>
#include <string.h>

/* Only byte arrays, so that there is no padding and no alignment; numbers are big-endian. */
struct wire_request {
	uint8_t version, op, proto, flags;
	uint8_t zero0[4];
	uint8_t seq[8], hole[8], cookie[8];
	uint8_t inside_ip[16], remote_ip[16];
	uint8_t inside_port[2], remote_port[2];
	uint8_t lifetime_s[4], connect_s[4], syn_rate[4], idle_s[4], packets_per_s[4];
	uint8_t bytes_per_s[8];
	uint8_t key[16];
	uint8_t user[GATE_USER_MAX + 1];
	uint8_t user_bytes_per_s[8];
	uint8_t user_packets_per_s[4];
	uint8_t zero1[4];
};
_Static_assert(sizeof(struct wire_request) == GATE_REQUEST_BYTES, "request on the wire");
_Static_assert(offsetof(struct wire_request, inside_ip) == 32, "request on the wire");
_Static_assert(offsetof(struct wire_request, bytes_per_s) == 88, "request on the wire");
_Static_assert(offsetof(struct wire_request, user) == 112, "request on the wire");

struct wire_reply {
	uint8_t version, op, status, proto, flags;
	uint8_t zero0[3];
	uint8_t seq[8], hole[8], cookie[8];
	uint8_t inside_ip[16], remote_ip[16], public_ip[16];
	uint8_t inside_port[2], remote_port[2], public_port[2];
	uint8_t zero1[2];
	uint8_t lifetime_s[4];
	uint8_t zero2[4];
	uint8_t packets[8], bytes[8];
	uint8_t user[GATE_USER_MAX + 1];
	uint8_t zero3[16];
};
_Static_assert(sizeof(struct wire_reply) == GATE_REPLY_BYTES, "reply on the wire");
_Static_assert(offsetof(struct wire_reply, inside_ip) == 32, "reply on the wire");
_Static_assert(offsetof(struct wire_reply, packets) == 96, "reply on the wire");
_Static_assert(offsetof(struct wire_reply, user) == 112, "reply on the wire");

/* The writer takes the struct as it is from the parser: its size must not depend on the compiler. */
_Static_assert(sizeof(struct wn_addr) == 18, "address in records");
_Static_assert(sizeof(struct gate_request) == 192, "request between the processes");
_Static_assert(sizeof(struct gate_reply) == 176, "reply between the processes");

static void put(uint8_t *p, size_t n, uint64_t v)
{
	while (n > 0) {
		p[--n] = (uint8_t)v;
		v >>= 8;
	}
}

static uint64_t get(const uint8_t *p, size_t n)
{
	uint64_t v = 0;

	for (size_t i = 0; i < n; i++)
		v = v << 8 | p[i];
	return v;
}

#define PUT(field, v) put((field), sizeof(field), (v))
#define GET(field)    get((field), sizeof(field))

static bool all_zero(const void *p, size_t n)
{
	const uint8_t *b = p;
	uint8_t any = 0;

	for (size_t i = 0; i < n; i++)
		any |= b[i];
	return any == 0;
}

/* Whether this is 1 to 63 of the characters of a user's name and then NUL to the end. */
static bool name_ok(const char user[static GATE_USER_MAX + 1])
{
	size_t n = 0;

	while (n < GATE_USER_MAX && ((user[n] >= 'a' && user[n] <= 'z') || (user[n] >= 'A' && user[n] <= 'Z') ||
				     (user[n] >= '0' && user[n] <= '9') || user[n] == '.' || user[n] == '_' || user[n] == '-'))
		n++;
	return n > 0 && all_zero(user + n, GATE_USER_MAX + 1 - n);
}

static bool unspecified(const struct wn_addr *a)
{
	return all_zero(a->ip, 10) && (all_zero(a->ip + 10, 2) || (a->ip[10] == 0xff && a->ip[11] == 0xff)) && all_zero(a->ip + 12, 4);
}

static bool mapped4(const struct wn_addr *a)
{
	return all_zero(a->ip, 10) && a->ip[10] == 0xff && a->ip[11] == 0xff;
}

static bool open_ok(const struct gate_request *r)
{
	bool tcp = r->proto == IPPROTO_TCP, udp = r->proto == IPPROTO_UDP, tag = (r->flags & GATE_FLAG_TAG) != 0;

	if (!tcp && !udp)
		return false;
	if ((r->flags & ~GATE_FLAG_TAG) != 0 || (tag && !udp) || tag == all_zero(r->key, sizeof(r->key)))
		return false;
	if (r->hole != 0 || unspecified(&r->inside) || r->inside.port == 0)
		return false;
	/* With a tag the first valid one binds the source, so a remote address is only a remark. */
	if (!tag && (unspecified(&r->remote) || mapped4(&r->inside) != mapped4(&r->remote) || (udp && r->remote.port == 0)))
		return false;
	if (r->lifetime_s < 1 || r->lifetime_s > GATE_LIFETIME_MAX_S || r->idle_s > GATE_IDLE_MAX_S)
		return false;
	if (r->connect_s > (tcp ? GATE_CONNECT_MAX_S : 0) || r->syn_rate > (tcp ? GATE_SYN_RATE_MAX : 0))
		return false;
	if (r->bytes_per_s > GATE_BYTES_PER_S_MAX || r->packets_per_s > GATE_PACKETS_PER_S_MAX)
		return false;
	if (r->user_bytes_per_s > GATE_BYTES_PER_S_MAX || r->user_packets_per_s > GATE_PACKETS_PER_S_MAX)
		return false;
	return name_ok(r->user);
}

/* Copies the fields that the op uses; everything else becomes zero. */
static void only_used(const struct gate_request *r, struct gate_request *out)
{
	memset(out, 0, sizeof(*out));
	out->op = r->op;
	out->seq = r->seq;
	out->tenant = r->tenant;
	if (r->op == GATE_OPEN) {
		*out = *r;
		out->hole = 0;
		if (r->proto != IPPROTO_TCP)
			out->connect_s = out->syn_rate = 0;
		if ((r->flags & GATE_FLAG_TAG) == 0)
			memset(out->key, 0, sizeof(out->key));
	} else if (r->op == GATE_RENEW || r->op == GATE_CLOSE) {
		out->hole = r->hole;
		if (r->op == GATE_RENEW)
			out->lifetime_s = r->lifetime_s;
	}
}

static bool same_wire_fields(const struct gate_request *a, const struct gate_request *b)
{
	return a->proto == b->proto && a->flags == b->flags && a->hole == b->hole && a->cookie == b->cookie &&
	       memcmp(a->inside.ip, b->inside.ip, 16) == 0 && a->inside.port == b->inside.port &&
	       memcmp(a->remote.ip, b->remote.ip, 16) == 0 && a->remote.port == b->remote.port && a->lifetime_s == b->lifetime_s &&
	       a->connect_s == b->connect_s && a->syn_rate == b->syn_rate && a->idle_s == b->idle_s && a->bytes_per_s == b->bytes_per_s &&
	       a->packets_per_s == b->packets_per_s && a->user_bytes_per_s == b->user_bytes_per_s &&
	       a->user_packets_per_s == b->user_packets_per_s && all_zero(a->key, 16) == all_zero(b->key, 16) &&
	       memcmp(a->user, b->user, sizeof(a->user)) == 0;
}

int gate_request_check(const struct gate_request *r)
{
	struct gate_request used;
	bool ok;

	switch (r->op) {
	case GATE_OPEN:
		ok = open_ok(r);
		break;
	case GATE_RENEW:
		ok = r->hole != 0 && r->lifetime_s >= 1 && r->lifetime_s <= GATE_LIFETIME_MAX_S;
		break;
	case GATE_CLOSE:
		ok = r->hole != 0;
		break;
	case GATE_PING:
	case GATE_LIST:
		ok = true;
		break;
	default:
		ok = false;
	}
	if (ok) {
		only_used(r, &used);
		ok = same_wire_fields(r, &used);
	}
	return ok ? 0 : -EBADMSG;
}

void gate_request_encode(const struct gate_request *r, uint8_t out[static GATE_REQUEST_BYTES])
{
	struct wire_request w = {.version = GATE_RECORD_VERSION};
	struct gate_request u;

	only_used(r, &u);
	w.op = u.op;
	w.proto = u.proto;
	w.flags = u.flags;
	PUT(w.seq, u.seq);
	PUT(w.hole, u.hole);
	PUT(w.cookie, u.cookie);
	memcpy(w.inside_ip, u.inside.ip, 16);
	memcpy(w.remote_ip, u.remote.ip, 16);
	PUT(w.inside_port, u.inside.port);
	PUT(w.remote_port, u.remote.port);
	PUT(w.lifetime_s, u.lifetime_s);
	PUT(w.connect_s, u.connect_s);
	PUT(w.syn_rate, u.syn_rate);
	PUT(w.idle_s, u.idle_s);
	PUT(w.packets_per_s, u.packets_per_s);
	PUT(w.bytes_per_s, u.bytes_per_s);
	PUT(w.user_bytes_per_s, u.user_bytes_per_s);
	PUT(w.user_packets_per_s, u.user_packets_per_s);
	memcpy(w.key, u.key, sizeof(w.key));
	memcpy(w.user, u.user, strnlen(u.user, GATE_USER_MAX));
	memcpy(out, &w, sizeof(w));
}

int gate_request_decode(const uint8_t in[static GATE_REQUEST_BYTES], struct gate_request *out)
{
	struct wire_request w;
	struct gate_request r = {0};
	int ret = -EBADMSG;

	memcpy(&w, in, sizeof(w));
	r.op = w.op;
	r.proto = w.proto;
	r.flags = w.flags;
	r.seq = GET(w.seq);
	r.hole = GET(w.hole);
	r.cookie = GET(w.cookie);
	memcpy(r.inside.ip, w.inside_ip, 16);
	memcpy(r.remote.ip, w.remote_ip, 16);
	r.inside.port = (uint16_t)GET(w.inside_port);
	r.remote.port = (uint16_t)GET(w.remote_port);
	r.lifetime_s = (uint32_t)GET(w.lifetime_s);
	r.connect_s = (uint32_t)GET(w.connect_s);
	r.syn_rate = (uint32_t)GET(w.syn_rate);
	r.idle_s = (uint32_t)GET(w.idle_s);
	r.packets_per_s = (uint32_t)GET(w.packets_per_s);
	r.bytes_per_s = GET(w.bytes_per_s);
	r.user_bytes_per_s = GET(w.user_bytes_per_s);
	r.user_packets_per_s = (uint32_t)GET(w.user_packets_per_s);
	memcpy(r.key, w.key, sizeof(r.key));
	memcpy(r.user, w.user, sizeof(r.user));

	if (w.version == GATE_RECORD_VERSION && all_zero(w.zero0, sizeof(w.zero0)) && all_zero(w.zero1, sizeof(w.zero1)))
		ret = gate_request_check(&r);
	if (ret == 0) {
		*out = r;
	} else {
		memset(out, 0, sizeof(*out));
		out->op = r.op < GATE_OPS ? r.op : 0;
		out->seq = r.seq;
	}
	return ret;
}

void gate_reply_encode(const struct gate_reply *r, uint8_t out[static GATE_REPLY_BYTES])
{
	struct wire_reply w = {.version = GATE_RECORD_VERSION, .op = r->op, .status = r->status, .proto = r->proto, .flags = r->flags};

	PUT(w.seq, r->seq);
	PUT(w.hole, r->hole);
	PUT(w.cookie, r->cookie);
	memcpy(w.inside_ip, r->inside.ip, 16);
	memcpy(w.remote_ip, r->remote.ip, 16);
	memcpy(w.public_ip, r->public.ip, 16);
	PUT(w.inside_port, r->inside.port);
	PUT(w.remote_port, r->remote.port);
	PUT(w.public_port, r->public.port);
	PUT(w.lifetime_s, r->lifetime_s);
	PUT(w.packets, r->packets);
	PUT(w.bytes, r->bytes);
	memcpy(w.user, r->user, strnlen(r->user, GATE_USER_MAX));
	memcpy(out, &w, sizeof(w));
}

int gate_reply_decode(const uint8_t in[static GATE_REPLY_BYTES], struct gate_reply *out)
{
	struct wire_reply w;

	memcpy(&w, in, sizeof(w));
	if (w.version != GATE_RECORD_VERSION || w.op >= GATE_OPS || w.status >= GATE_STATUSES ||
	    (w.op == 0 && w.status != GATE_BAD_RECORD && w.status != GATE_BAD_SEQUENCE))
		return -EBADMSG;
	if ((w.proto != 0 && w.proto != IPPROTO_TCP && w.proto != IPPROTO_UDP) || (w.flags & ~GATE_FLAG_TAG) != 0)
		return -EBADMSG;
	if (!all_zero(w.zero0, sizeof(w.zero0)) || !all_zero(w.zero1, sizeof(w.zero1)) || !all_zero(w.zero2, sizeof(w.zero2)) ||
	    !all_zero(w.zero3, sizeof(w.zero3)))
		return -EBADMSG;
	if (w.user[0] != 0 && !name_ok((const char *)w.user))
		return -EBADMSG;
	if (w.user[0] == 0 && !all_zero(w.user, sizeof(w.user)))
		return -EBADMSG;

	memset(out, 0, sizeof(*out));
	out->op = w.op;
	out->status = w.status;
	out->proto = w.proto;
	out->flags = w.flags;
	out->seq = GET(w.seq);
	out->hole = GET(w.hole);
	out->cookie = GET(w.cookie);
	memcpy(out->inside.ip, w.inside_ip, 16);
	memcpy(out->remote.ip, w.remote_ip, 16);
	memcpy(out->public.ip, w.public_ip, 16);
	out->inside.port = (uint16_t)GET(w.inside_port);
	out->remote.port = (uint16_t)GET(w.remote_port);
	out->public.port = (uint16_t)GET(w.public_port);
	out->lifetime_s = (uint32_t)GET(w.lifetime_s);
	out->packets = GET(w.packets);
	out->bytes = GET(w.bytes);
	memcpy(out->user, w.user, sizeof(out->user));
	return 0;
}

const char *gate_status_name(enum gate_status s)
{
	static const char *const name[GATE_STATUSES] = {
		[GATE_OK] = "ok",
		[GATE_END] = "end",
		[GATE_BAD_RECORD] = "bad_record",
		[GATE_BAD_SEQUENCE] = "bad_sequence",
		[GATE_NOT_YOURS] = "not_yours",
		[GATE_QUOTA] = "quota",
		[GATE_FULL] = "full",
		[GATE_NO_PORT] = "no_port",
		[GATE_NO_HOLE] = "no_hole",
		[GATE_FAILED] = "failed",
		[GATE_DRAINING] = "draining",
	};

	return (unsigned)s < GATE_STATUSES ? name[s] : "unknown";
}

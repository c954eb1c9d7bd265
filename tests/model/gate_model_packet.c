/* SPDX-License-Identifier: Apache-2.0 */
#include <sodium.h>
#include <string.h>

#include "gate_model_int.h"

enum { TCP = 6, UDP = 17, ICMP = 1, L3 = 14, L4 = 34, TRAILER = 16, TAG_DATA_MAX = 1504, QUOTE = 42, QUOTE_L4 = 62 };

static uint32_t get16(const uint8_t *p)
{
	return (uint32_t)p[0] << 8 | p[1];
}

static uint32_t get32(const uint8_t *p)
{
	return get16(p) << 16 | get16(p + 2);
}

static void put16(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static void put32(uint8_t *p, uint32_t v)
{
	put16(p, v >> 16);
	put16(p + 2, v);
}

/* RFC 2018 3: what was received beyond the ACK, or again (RFC 2883); nothing is further off than a window can be. */
static bool read_blocks(const uint8_t *o, uint32_t len, struct gm_packet *p)
{
	if (len < 10 || len % 8 != 2)
		return false;
	for (uint32_t at = 2; at < len && at < 34; at += 8) {
		const uint32_t left = get32(o + at), right = get32(o + at + 4);
		const int64_t off = (int32_t)(right - p->ackno);

		if (right - left == 0 || right - left > 1u << 30 || off > 1 << 30 || off < -(1 << 30))
			return false;
		if (gm_before(p->sack, right))
			p->sack = right;
	}
	return true;
}

/* One option; RFC 9293 3.2, RFC 7323 2.2 and 3.2. \return whether a stack would send it. */
static bool read_option(const uint8_t *o, uint32_t len, struct gm_packet *p)
{
	switch (o[0]) {
	case 2:
		return !p->syn || (len == 4 && get16(o + 2) >= 88);
	case 3:
		if (!p->syn || len != 3)
			return !p->syn;
		p->scales = true;
		p->scale = o[2] > 14 ? 14 : o[2];
		return true;
	case 4:
		p->sacks = p->syn;
		return !p->syn || len == 2;
	case 5:
		return !p->syn && read_blocks(o, len, p);
	case 8:
		return len == 10;
	default:
		return true;
	}
}

static void read_options(const uint8_t *o, uint32_t n, struct gm_packet *p)
{
	bool seen[256] = {false};

	for (uint32_t at = 0; at < n && o[at] != 0;) {
		const uint32_t kind = o[at], len = kind == 1 ? 1 : at + 1 < n ? o[at + 1] : 0;

		if (kind != 1 && (len < 2 || len > n - at || (kind <= 8 && seen[kind]) || !read_option(o + at, len, p))) {
			p->bad = true;
			return;
		}
		seen[kind] = true;
		at += len;
	}
}

const char *gm_read_tcp(const uint8_t *l4, uint32_t n, uint32_t at, struct gm_packet *p)
{
	uint32_t header;
	uint8_t f;

	if (n < 20)
		return "malformed";
	header = (uint32_t)(l4[12] >> 4) * 4;
	if (header < 20 || header > n)
		return "malformed";
	f = l4[13];
	p->fin = f & 1;
	p->syn = f & 2;
	p->rst = f & 4;
	p->ack = f & 16;
	/* RFC 9293: a SYN stands alone or with ACK; everything else has ACK or RST; FIN never goes with RST, nor without ACK. */
	if (p->syn ? p->fin || p->rst : (!p->ack && !p->rst) || (p->fin && p->rst))
		return "malformed";
	p->sport = (uint16_t)get16(l4);
	p->dport = (uint16_t)get16(l4 + 2);
	p->seq = get32(l4 + 4);
	p->ackno = get32(l4 + 8);
	p->window = get16(l4 + 14);
	p->sack = p->ackno;
	read_options(l4 + 20, header - 20, p);
	p->payload = at + header;
	p->npayload = n - header;
	return NULL;
}

const char *gm_read(const struct gm_net *net, enum gm_side side, const uint8_t *frame, size_t n, struct gm_packet *p)
{
	const uint8_t *ip = frame + L3, *l4 = frame + L4;
	const char *bad;
	uint32_t type, rest;

	memset(p, 0, sizeof(*p));
	if (n < L3)
		return "malformed";
	type = get16(frame + 12);
	if (type == 0x0806)
		return "arp";
	if (type == 0x86dd && net->six)
		return gm_read6(net, side, frame, n, p);
	if (type != 0x0800 || memcmp(frame, net->mac[side], 6) != 0 || n < L4 || ip[0] != 0x45)
		return "malformed";
	p->len = get16(ip + 2);
	if (p->len < 20 || p->len > n - L3 || (get16(ip + 6) & 0x3fff) != 0)
		return "malformed";
	if (ip[12] == 0 || ip[12] == 127 || ip[12] >= 224)
		return "malformed";
	p->proto = ip[9];
	p->ttl = ip[8];
	p->df = (ip[6] & 0x40) != 0;
	p->src = get32(ip + 12);
	p->dst = get32(ip + 16);
	rest = p->len - 20;
	switch (p->proto) {
	case TCP:
		bad = gm_read_tcp(l4, rest, L4, p);
		if (bad != NULL)
			return bad;
		break;
	case UDP:
		if (rest < 8 || get16(l4 + 4) != rest)
			return "malformed";
		p->sport = (uint16_t)get16(l4);
		p->dport = (uint16_t)get16(l4 + 2);
		p->payload = L4 + 8;
		p->npayload = rest - 8;
		break;
	case ICMP:
		if (rest < 8)
			return "malformed";
		p->icmp_type = l4[0];
		if (l4[0] == 0 || l4[0] == 8)
			p->sport = p->dport = (uint16_t)get16(l4 + 4);
		p->payload = L4 + 8;
		p->npayload = rest - 8;
		return NULL;
	default:
		return "malformed";
	}
	return p->sport == 0 || p->dport == 0 ? "malformed" : NULL;
}

bool gm_read_quote(const uint8_t *frame, const struct gm_packet *p, struct gm_quote *q)
{
	const uint8_t *ip = frame + QUOTE, *l4 = frame + QUOTE_L4;

	if (p->six)
		return gm_read_quote6(frame, p, q);
	memset(q, 0, sizeof(*q));
	if (p->npayload < 28 || ip[0] != 0x45 || (get16(ip + 6) & 0x1fff) != 0)
		return false;
	q->proto = ip[9];
	q->src = get32(ip + 12);
	q->dst = get32(ip + 16);
	switch (q->proto) {
	case ICMP:
		if (l4[0] != 0 && l4[0] != 8)
			return false;
		q->sport = q->dport = (uint16_t)get16(l4 + 4);
		return true;
	case TCP:
	case UDP:
		q->sport = (uint16_t)get16(l4);
		q->dport = (uint16_t)get16(l4 + 2);
		q->seq = get32(l4 + 4);
		return true;
	default:
		return false;
	}
}

/* Ones' complement arithmetic is arithmetic modulo 65535. */
static uint32_t sum(const uint8_t *p, size_t n)
{
	uint64_t s = 0;

	for (size_t i = 0; i < n; i++)
		s += i % 2 == 0 ? (uint32_t)p[i] << 8 : p[i];
	return (uint32_t)(s % 65535);
}

/* Everything a checksum covers but itself: the checksum is at `at` of l4. */
static uint32_t covered(const uint8_t *ip, uint32_t n, uint32_t at, bool pseudo)
{
	uint64_t s = sum(ip + 20, n) + 65535 - get16(ip + 20 + at) % 65535;

	if (pseudo)
		s += sum(ip + 12, 8) + ip[9] + n;
	return (uint32_t)(s % 65535);
}

/* The checksum that is as right, or as wrong, over `is` as `check` was over `was`: a NAT does not mend what arrives broken. */
static uint32_t carried(uint32_t check, uint32_t was, uint32_t is)
{
	uint32_t s = (65535 - check + 65535 - was + is) % 65535;

	return 65535 - (s == 0 ? 65535 : s);
}

static void header_sum(uint8_t *ip, const uint8_t *before)
{
	uint32_t was = (sum(before, 20) + 65535 - get16(before + 10) % 65535) % 65535;
	uint32_t is = (sum(ip, 20) + 65535 - get16(ip + 10) % 65535) % 65535;

	put16(ip + 10, carried(get16(before + 10), was, is));
}

static uint32_t check_at(uint8_t proto)
{
	return proto == TCP ? 16 : proto == UDP ? 6 : 2;
}

void gm_rewrite(const struct gm_packet *p, const uint8_t *frame, size_t n, bool inbound, uint32_t ip, uint16_t port, bool strip,
		uint32_t keep, struct gm_answer *a)
{
	uint8_t *o = a->out + L3, *l4 = a->out + L4;
	uint32_t at = check_at(p->proto), rest = p->len - 20, check = get16(frame + L4 + at), is;

	if (p->six) {
		gm_forward6(p, frame, n, strip, keep, a);
		return;
	}
	memcpy(a->out, frame, n);
	a->n = n;
	if (strip) {
		rest = 8 + keep;
		put16(o + 2, 20 + rest);
		put16(l4 + 4, rest);
		a->n = L4 + rest;
	}
	o[8] = (uint8_t)(p->ttl - 1);
	put32(o + (inbound ? 16 : 12), ip);
	put16(l4 + (p->proto == ICMP ? 4 : inbound ? 2 : 0), port);
	header_sum(o, frame + L3);
	if (p->proto == UDP && check == 0) /* RFC 768: none, and none it stays */
		return;
	is = carried(check, covered(frame + L3, p->len - 20, at, p->proto != ICMP), covered(o, rest, at, p->proto != ICMP));
	put16(l4 + at, p->proto == UDP && is == 0 ? 65535 : is);
}

void gm_forward(const struct gm_packet *p, const uint8_t *frame, size_t n, struct gm_answer *a)
{
	if (p->six) {
		gm_forward6(p, frame, n, false, 0, a);
		return;
	}
	memcpy(a->out, frame, n);
	a->n = n;
	a->out[L3 + 8] = (uint8_t)(p->ttl - 1);
	header_sum(a->out + L3, frame + L3);
}

/* RFC 5508 REQ-4, REQ-5: inside the error, the packet as its sender knows it; around it, the error's own ends. */
void gm_rewrite_error(const struct gm_packet *p, const struct gm_quote *q, const uint8_t *frame, size_t n, bool inbound, uint32_t ip,
		      uint16_t port, struct gm_answer *a)
{
	uint8_t *o = a->out, *quoted = o + QUOTE, *l4 = o + QUOTE_L4;
	const uint32_t field = inbound ? 12 : 16, pfield = q->proto == ICMP ? 4 : inbound ? 0 : 2, at = check_at(q->proto);
	uint32_t was, is, check;

	memcpy(o, frame, n);
	a->n = n;
	put32(quoted + field, ip);
	header_sum(quoted, frame + QUOTE);
	put16(l4 + pfield, port);
	if (p->npayload >= 20 + at + 2) {
		/* Not all that it covers need be quoted: what changed is enough. */
		was = get16(frame + QUOTE_L4 + pfield);
		is = port;
		if (q->proto != ICMP) {
			was = (was + sum(frame + QUOTE + field, 4)) % 65535;
			is = (is + sum(quoted + field, 4)) % 65535;
		}
		check = get16(l4 + at);
		if (q->proto != UDP || check != 0) {
			is = carried(check, was, is);
			put16(l4 + at, q->proto == UDP && is == 0 ? 65535 : is);
		}
	}
	put16(o + L4 + 2,
	      carried(get16(frame + L4 + 2), covered(frame + L3, p->len - 20, 2, false), covered(o + L3, p->len - 20, 2, false)));
	o[L3 + 8] = (uint8_t)(p->ttl - 1);
	put32(o + L3 + (inbound ? 16 : 12), ip);
	header_sum(o + L3, frame + L3);
}

const char *gm_route(const struct gm_net *net, enum gm_side from, uint32_t dst, uint32_t len, struct gm_answer *a)
{
	const enum gm_side to = from == GM_OUTSIDE ? GM_INSIDE : GM_OUTSIDE;
	const bool lan = (dst & 0xffffff00) == net->lan, wan = (dst & 0xffffff00) == net->wan;
	const uint32_t hop = lan || wan ? dst : net->gateway;

	if (dst == net->control_ip || (!net->six && (lan || wan) && ((dst & 255) == 0 || (dst & 255) == 255)))
		return "route";
	if (len > net->mtu)
		return "big";
	if (lan != (to == GM_INSIDE))
		return "route";
	for (unsigned i = 0; i < net->nhops; i++) {
		if (net->hop[i].ip == hop) {
			memcpy(a->out, net->hop[i].mac, 6);
			memcpy(a->out + 6, net->mac[to], 6);
			return NULL;
		}
	}
	return "route"; /* nobody there */
}

/* RFC 792, RFC 1191: a header of its own around the first eight bytes of what the packet carries. */
void gm_tell(const struct gm_packet *p, const uint8_t *frame, uint32_t from, uint8_t type, uint8_t code, uint32_t word, struct gm_answer *a)
{
	uint8_t *ip = a->out + L3, *icmp = a->out + L4;

	if (p->six) {
		gm_tell6(p, frame, from, type == 3 ? 2 : 3, word, a);
		return;
	}
	memset(a->out, 0, QUOTE);
	memcpy(a->out, frame + 6, 6);
	memcpy(a->out + 6, frame, 6);
	put16(a->out + 12, 0x0800);
	put32(ip, 0x45c00000 | 56);
	put32(ip + 4, 0x4000);
	put32(ip + 8, 0x40010000);
	put32(ip + 12, from);
	put32(ip + 16, p->src);
	put16(ip + 10, carried(0, 65535 - 0, sum(ip, 20)));
	icmp[0] = type;
	icmp[1] = code;
	put32(icmp + 4, word);
	memcpy(a->out + QUOTE, frame + L3, 28);
	put16(icmp + 2, carried(0, 65535 - 0, sum(icmp, 36)));
	a->n = QUOTE + 28;
}

bool gm_tag_valid(const uint8_t key[16], const uint8_t *data, uint32_t n, uint64_t *counter)
{
	uint8_t mac[8];

	if (n < TRAILER || n - TRAILER > TAG_DATA_MAX)
		return false;
	crypto_shorthash(mac, data, n - 8, key);
	*counter = (uint64_t)get32(data + n - 16) << 32 | get32(data + n - 12);
	return memcmp(mac, data + n - 8, 8) == 0;
}

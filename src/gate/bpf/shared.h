/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/** \file What the packet path and user space share: reasons, keys, values. Addresses and ports are in network order unless said otherwise;
 * times are nanoseconds of the boot clock. Raise GATE_ABI with every change of a pinned shape. */
#pragma once

#include <linux/bpf.h>
#include <linux/types.h>

#include "gate/bpf/filter.h"

#define GATE_ABI 5u

enum gate_side { GATE_OUTSIDE = 0, GATE_INSIDE = 1, GATE_SIDES };

/* X(enumerator, name, is a drop). Names are what `status`, metrics and the manual show: append, never rename. */
#define GATE_REASONS(X)                                 \
	X(GATE_R_OK, "none", 0)                         \
	/* frame and IP header */                       \
	X(GATE_R_TRUNCATED, "truncated", 1)             \
	X(GATE_R_OTHER_MAC, "other_mac", 1)             \
	X(GATE_R_VLAN, "vlan", 1)                       \
	X(GATE_R_IPV6, "ipv6", 1)                       \
	X(GATE_R_ETHERTYPE, "ethertype", 1)             \
	X(GATE_R_IP_HEADER, "ip_header", 1)             \
	X(GATE_R_IP_OPTIONS, "ip_options", 1)           \
	X(GATE_R_IPV6_EXTENSION, "ipv6_extension", 1)   \
	X(GATE_R_FRAGMENT, "fragment", 1)               \
	X(GATE_R_FRAGMENT_INSIDE, "fragment_inside", 1) \
	X(GATE_R_IP_SOURCE, "ip_source", 1)             \
	X(GATE_R_TTL, "ttl", 1)                         \
	X(GATE_R_PROTOCOL, "protocol", 1)               \
	X(GATE_R_L4_HEADER, "l4_header", 1)             \
	X(GATE_R_L4_LENGTH, "l4_length", 1)             \
	X(GATE_R_UDP_CHECKSUM, "udp_checksum", 1)       \
	X(GATE_R_TCP_FLAGS, "tcp_flags", 1)             \
	X(GATE_R_ICMP_TYPE, "icmp_type", 1)             \
	/* from outside */                              \
	X(GATE_R_NOT_PUBLIC, "not_public", 1)           \
	X(GATE_R_NO_HOLE, "no_hole", 1)                 \
	X(GATE_R_HOLE_EXPIRED, "hole_expired", 1)       \
	X(GATE_R_HOLE_IDLE, "hole_idle", 1)             \
	X(GATE_R_CONNECT_LATE, "connect_late", 1)       \
	X(GATE_R_WRONG_REMOTE, "wrong_remote", 1)       \
	X(GATE_R_NO_SESSION, "no_session", 1)           \
	X(GATE_R_SESSION_EXPIRED, "session_expired", 1) \
	X(GATE_R_TAG_SHORT, "tag_short", 1)             \
	X(GATE_R_TAG_LONG, "tag_long", 1)               \
	X(GATE_R_TAG_INVALID, "tag_invalid", 1)         \
	X(GATE_R_TAG_REPLAY, "tag_replay", 1)           \
	X(GATE_R_RATE_BYTES, "rate_bytes", 1)           \
	X(GATE_R_RATE_PACKETS, "rate_packets", 1)       \
	X(GATE_R_USER_BYTES, "rate_user_bytes", 1)      \
	X(GATE_R_USER_PACKETS, "rate_user_packets", 1)  \
	X(GATE_R_REVERSE_CLASH, "reverse_clash", 1)     \
	/* TCP */                                       \
	X(GATE_R_SYN_RATE, "syn_rate", 1)               \
	X(GATE_R_SYN_DATA, "syn_data", 1)               \
	X(GATE_R_TCP_OPTIONS, "tcp_options", 1)         \
	X(GATE_R_TCP_STATE, "tcp_state", 1)             \
	X(GATE_R_TCP_ACK, "tcp_ack", 1)                 \
	X(GATE_R_TCP_WINDOW, "tcp_window", 1)           \
	X(GATE_R_TCP_RST, "tcp_rst", 1)                 \
	X(GATE_R_TCP_NO_SESSION, "tcp_no_session", 1)   \
	/* from inside */                               \
	X(GATE_R_SPOOFED, "spoofed", 1)                 \
	X(GATE_R_SERVICE_PORT, "service_port", 1)       \
	X(GATE_R_HAIRPIN, "hairpin", 1)                 \
	X(GATE_R_TO_HOST, "to_host", 1)                 \
	X(GATE_R_TO_NOWHERE, "to_nowhere", 1)           \
	/* tables */                                    \
	X(GATE_R_NO_PORT, "no_port", 1)                 \
	X(GATE_R_MAPPINGS_FULL, "mappings_full", 1)     \
	X(GATE_R_FLOWS_FULL, "flows_full", 1)           \
	X(GATE_R_TENANT_FULL, "tenant_full", 1)         \
	X(GATE_R_BUSY, "busy", 1)                       \
	/* towards the gate's host */                   \
	X(GATE_R_ARP_RATE, "arp_rate", 1)               \
	X(GATE_R_ND_INVALID, "nd_invalid", 1)           \
	X(GATE_R_ND_ROUTER, "nd_router", 1)             \
	X(GATE_R_ND_RATE, "nd_rate", 1)                 \
	X(GATE_R_MLD, "mld", 1)                         \
	X(GATE_R_CONTROL_RATE, "control_rate", 1)       \
	/* ICMP errors */                               \
	X(GATE_R_ICMP_UNMATCHED, "icmp_unmatched", 1)   \
	X(GATE_R_ICMP_RATE, "icmp_rate", 1)             \
	/* next hop */                                  \
	X(GATE_R_NO_ROUTE, "no_route", 1)               \
	X(GATE_R_WRONG_EGRESS, "wrong_egress", 1)       \
	X(GATE_R_NO_NEIGHBOUR, "no_neighbour", 1)       \
	X(GATE_R_TOO_BIG, "too_big", 1)                 \
	X(GATE_R_TOO_BIG_TOLD, "too_big_told", 1)       \
	X(GATE_R_FORWARDING_OFF, "forwarding_off", 1)   \
	X(GATE_R_INTERNAL, "internal", 1)               \
	/* what passed */                               \
	X(GATE_R_ARP, "arp", 0)                         \
	X(GATE_R_ND, "discovery", 0)                    \
	X(GATE_R_CONTROL, "control", 0)                 \
	X(GATE_R_HOLE_IN, "hole_in", 0)                 \
	X(GATE_R_HOLE_OUT, "hole_out", 0)               \
	X(GATE_R_SESSION_IN, "session_in", 0)           \
	X(GATE_R_SESSION_OUT, "session_out", 0)         \
	X(GATE_R_ICMP_ERROR, "icmp_error", 0)           \
	X(GATE_R_HOLE_BOUND, "hole_bound", 0)           \
	X(GATE_R_MAPPING_NEW, "mapping_new", 0)         \
	X(GATE_R_SESSION_NEW, "session_new", 0)

enum gate_reason {
#define GATE_REASON_ENUM(e, name, drop) e,
	GATE_REASONS(GATE_REASON_ENUM)
#undef GATE_REASON_ENUM
		GATE_REASON_COUNT
};

#define GATE_NS_PER_S  1000000000ull
#define GATE_NS_PER_MS 1000000ull

/* RFC 4787 REQ-5 (at least 2 min, 5 recommended), RFC 5382 REQ-5 (4 min, 2 h 4 min; a reset connection too, RFC 7857 section 2.2),
 * RFC 5508 REQ-2 (60 s). */
#define GATE_UDP_NEW_NS         (120 * GATE_NS_PER_S)
#define GATE_UDP_NS             (300 * GATE_NS_PER_S)
#define GATE_TCP_TRANSITORY_NS  (240 * GATE_NS_PER_S)
#define GATE_TCP_ESTABLISHED_NS (7440 * GATE_NS_PER_S)
#define GATE_ICMP_NS            (60 * GATE_NS_PER_S)
#define GATE_REFRESH_SHIFT      5                   /* an expiry is written again only when it moves by 1/32 of the lifetime */
#define GATE_MAPPING_SLACK_NS   (3 * GATE_NS_PER_S) /* a mapping outlives its sessions by this */
#define GATE_REAP_GRACE_NS      GATE_NS_PER_S       /* expired for so long before it is deleted: no packet still holds it */

#define GATE_PUBLIC_SLOTS   16
#define GATE_PUBLIC_AT_BITS 6
#define GATE_TENANT_SLOTS   64
#define GATE_EMBRYOS        8 /* handshakes that a TCP hole follows at a time */
#define GATE_TAG_TRAILER    16
#define GATE_TAG_DATA_MAX   1504 /* payload without the trailer */
#define GATE_REPLAY_WORDS   16
#define GATE_PORT_TRIES     32
#define GATE_ICMP_PER_S     100 /* translated errors a second and CPU */
#define GATE_ARP_PER_S      2000
#define GATE_ND_PER_S       2000
#define GATE_CONTROL_PER_S  100000
#define GATE_CONTROL_SYN_S  200

/** Protocol index in the port table. */
enum gate_proto { GATE_P_TCP = 0, GATE_P_UDP = 1, GATE_P_ICMP = 2, GATE_PROTOS };

struct gate_ip6 {
	__u32 w[4];
};

/** An address of either family, where both are kept in one table. */
union gate_addr {
	__u32 ip4;
	struct gate_ip6 ip6;
};

/** The programs' read-only data: a new file is a new load, swapped in atomically. */
struct gate_params {
	__u32 ifindex[GATE_SIDES];
	__u8 mac[GATE_SIDES][8]; /* 6 used */
	__u32 public_ip[GATE_PUBLIC_SLOTS];
	__u32 npublic;
	__u32 public_mult;                        /* makes a place in public_at of an address: another for each */
	__u8 public_at[1 << GATE_PUBLIC_AT_BITS]; /* -> its slot; of no address of ours: any slot */
	__u32 port_low, port_span;                /* host order; span = high - low + 1 */
	__u32 control_ip;
	__u16 control_port;
	__u16 ntenant;
	__u32 tenant_flows; /* sessions that one tenant may hold */
	__u32 sessions;     /* and all of them together */
	struct gate_filter_size filter;
	__u64 port_key[2]; /* makes public ports unpredictable even to who sees many */
	__u64 filter_key;
	__u32 firewall; /* IPv4: public_ip are the services' own addresses, and nothing is translated */
	__u32 ip6;      /* IPv6 is served at all */
	__u32 nprotected6;
	__u32 self_ip[GATE_SIDES]; /* the gate's own addresses, that its messages come from; 0: none */
	struct gate_ip6 self_ip6[GATE_SIDES];
	struct gate_ip6 control_ip6;
	struct gate_ip6 protected6[GATE_PUBLIC_SLOTS];
};

/** One end of a flow inside: key of mappings and of services. */
struct gate_end {
	__u32 ip;
	__u16 port; /* ICMP: query id */
	__u8 proto; /* IPPROTO_x */
	__u8 pad;
};

struct gate_end6 {
	struct gate_ip6 ip;
	__u16 port;
	__u8 proto;
	__u8 pad;
};

/** A flow as the inside sees it: local is the inside end. ICMP: the query id is the local port, the remote one is 0. */
struct gate_key {
	__u32 local_ip, remote_ip;
	__u16 local_port, remote_port;
	__u8 proto;
	__u8 pad[3];
};

struct gate_key6 {
	struct gate_ip6 local_ip, remote_ip;
	__u16 local_port, remote_port;
	__u8 proto;
	__u8 pad[3];
};

/* Port table: who owns public address x protocol x port. */
#define GATE_OWNER_SHIFT    62
#define GATE_OWNER_HOLE     1ull /* | index of the grant */
#define GATE_OWNER_MAPPING  2ull /* | inside address << 16 | inside port (as loaded from the packet) */
#define GATE_OWNER(kind, v) (((__u64)(kind) << GATE_OWNER_SHIFT) | (__u64)(v))
#define GATE_OWNER_KIND(o)  ((o) >> GATE_OWNER_SHIFT)
#define GATE_OWNER_VALUE(o) ((o) & ~(3ull << GATE_OWNER_SHIFT))

struct gate_port {
	__u64 owner; /* changed by compare-and-swap only, in the path and in user space */
};

#define GATE_PORT_INDEX(pub, proto, port) ((((__u32)(pub)*GATE_PROTOS + (__u32)(proto)) << 16) | (__u32)(port))

/* Flow table: who owns an inside five-tuple. 0: nobody. Changed under the entry's lock. */
#define GATE_FLOW_HOLE    1ull         /* | hole id */
#define GATE_FLOW_SESSION 2ull         /* | public slot << 16 | public port (as in the packet) */
#define GATE_FLOW_DEAD    (3ull << 62) /* being deleted, by who wrote this: nobody may revive it */

/* Without translation all holes of a service share its port: what no flow claims is looked up among the holes that wait for their first
 * packet from this remote. Its address is zero for a hole whose first valid tag is still to say it. */
#define GATE_WAITING 8 /* of one remote at one port */
struct gate_waiting_key {
	__u32 local_ip, remote_ip;
	__u16 local_port;
	__u8 proto;
	__u8 pad;
};

struct gate_waiting_key6 {
	struct gate_ip6 local_ip, remote_ip;
	__u16 local_port;
	__u8 proto;
	__u8 pad;
};

struct gate_waiting {
	__u32 place[GATE_WAITING]; /* index of the grant, plus one; 0 from the first free one on */
};

/* Hole id: 42 bits of generation, 20 bits of index; 0 is none. */
#define GATE_HOLE_INDEX_BITS 20
#define GATE_HOLE_INDEX(id)  ((__u32)((id) & ((1u << GATE_HOLE_INDEX_BITS) - 1)))

#define GATE_GRANT_TAG 1u
#define GATE_GRANT_IP6 2u

/** What was granted. User space writes it (memory mapped; `id` last, and cleared first), the path only reads it. */
struct gate_grant {
	__u64 id;
	__u64 expires;
	__u64 connect_by;
	__u64 opened;
	__u64 idle_ns;                               /* 0: none */
	__u64 key[2];                                /* SipHash key as two little-endian words */
	__u64 byte_cost;                             /* ns per byte << 16; 0: no limit */
	__u64 packet_cost;                           /* ns per packet; 0: no limit */
	__u64 syn_cost;                              /* ns per SYN */
	__u16 inside_port, remote_port, public_port; /* remote_port 0: any */
	__u8 proto;
	__u8 flags;                             /* GATE_GRANT_x */
	__u32 user;                             /* place in `users`; 0: none */
	union gate_addr inside, remote, public; /* what IPv4 needs is in the first two cache lines */
	__u32 pad;
	__u64 spare[6];
};

/** What the holes of one user share. Place 0 is nobody's. A line of the cache each: users do not slow each other down. */
struct gate_user {
	__u64 byte_due, packet_due;   /* buckets as theoretical arrival times; the path changes each in one step */
	__u64 byte_cost, packet_cost; /* as in a grant; user space writes them */
	__u64 spare[4];
};

/** What LIST shows and the path does not need. */
struct gate_info {
	__u64 id;
	__u64 cookie;
	__u64 tenant_name; /* hash: a file may list its tenants in another order after a restart */
	__u32 tenant;
	__u32 public_slot;
	char user[64];
	__u64 spare[4];
};

/** One direction of a TCP connection, in the terms of the sender (host order). */
struct gate_tcp_end {
	__u32 end;    /* highest sequence number sent, plus one */
	__u32 limit;  /* highest the other side allowed so far */
	__u32 window; /* largest that it advertised, scaled */
	__u32 ack;    /* highest it acknowledged */
	__u8 scale;
	__u8 flags; /* GATE_TCP_x */
	__u16 pad;
};
#define GATE_TCP_SCALE 1u /* offered window scaling */
#define GATE_TCP_SACK  2u
#define GATE_TCP_FIN   4u   /* has sent FIN */
#define GATE_TCP_KNOWN 8u   /* has sent anything */
#define GATE_TCP_BAD   128u /* never kept: options that make no sense */

enum gate_tcp_state {
	GATE_TCP_NONE = 0,
	GATE_TCP_SYN,      /* the opener's SYN */
	GATE_TCP_SYN_BOTH, /* simultaneous open */
	GATE_TCP_SYNACK,
	GATE_TCP_ESTABLISHED,
	GATE_TCP_CLOSING, /* one FIN */
	GATE_TCP_CLOSED,  /* both */
	GATE_TCP_RESET,
};

/** Indexed by the sender's side. */
struct gate_track {
	struct gate_tcp_end end[GATE_SIDES];
	__u8 state; /* enum gate_tcp_state */
	__u8 pad[3];
	__u32 spare;
};

/** What an inside five-tuple belongs to. Of a hole's flow only `owner` counts: its state is in `holes`. */
struct gate_flow {
	struct bpf_spin_lock lock;
	__u8 replied;
	__u8 pad;
	__u16 tenant;
	__u64 owner;
	__u64 expires;
	struct gate_track track;
	__u64 opened;
	__u64 spare[6]; /* with its key and the kernel's own header an entry is three cache lines */
};

/** Endpoint-independent mapping. */
struct gate_mapping {
	__u64 expires; /* GATE_MAPPING_DEAD while it is deleted; changed by compare-and-swap */
	__u32 public_ip;
	__u16 public_port;
	__u8 public_slot;
	__u8 tenant;
	__u64 spare;
};
#define GATE_MAPPING_DEAD 1ull

struct gate_embryo {
	__u64 seen; /* 0: free */
	__u32 client_isn, service_isn;
	__u16 port;
	__u8 answered; /* the service's SYN-ACK has passed */
	__u8 pad[5];
	struct gate_tcp_end end[GATE_SIDES];
};

struct gate_replay {
	__u64 top;
	__u64 bits[GATE_REPLAY_WORDS];
};

/** A hole's own state: only the path writes it, under the lock. It belongs to grant `id`; another id means it is left from before. */
struct gate_hole {
	struct bpf_spin_lock lock;
	__u8 bound;
	__u8 pad[3];
	__u64 id;
	__u64 last;                          /* latest packet that passed, either way */
	__u64 byte_due, packet_due, syn_due; /* token buckets as theoretical arrival times */
	union gate_addr remote;
	__u16 remote_port;
	__u16 pad2[3];
	__u64 packets_in, bytes_in, packets_out, bytes_out;
	__u64 closed; /* TCP: when the connection ended; 0 while it lives */
	union {
		struct gate_replay replay;
		struct {
			struct gate_track track;
			struct gate_embryo embryo[GATE_EMBRYOS];
		};
	};
	__u64 spare[2];
};

/** An inside end that is or was granted as a service: it opens no mapping. */
struct gate_service {
	__u64 until; /* latest expiry of its holes */
	__u64 spare;
};

/** Per tenant, and in the last place for all of them; kept over restarts. */
#define GATE_USAGE_ALL GATE_TENANT_SLOTS
struct gate_usage {
	__u64 sessions;
	__u64 spare[3];
};

struct gate_prefix_key {
	__u32 bits;
	__u32 ip;
};

struct gate_prefix_key6 {
	__u32 bits;
	struct gate_ip6 ip;
};

/** In the first and only element of `meta`; what does not match is not adopted. */
struct gate_meta {
	__u32 abi;
	__u32 ready; /* set last: a start that was interrupted is not adopted */
	__u32 sizes[8];
	__u32 public_ip[GATE_PUBLIC_SLOTS];
	__u64 boot_id;
	__u64 generation; /* of the next hole */
	__u32 port_low, port_span;
	__u32 generic;       /* the links are: both sides are of one kind */
	__u32 drain;         /* the operator wants no new holes; only user space looks */
	__u32 filter_half;   /* the one in use */
	__u32 firewall, ip6; /* as in struct gate_params */
	__u32 pad;
	__u64 filter_key;
	__u64 tenant_name[GATE_TENANT_SLOTS];
};

/** Places in `budgets`, each a number a CPU; 0: nothing used. */
enum gate_budget { GATE_B_ARP = 0, GATE_B_ND, GATE_B_CONTROL, GATE_B_CONTROL_SYN, GATE_B_ICMP, GATE_B_TRACE, GATE_B_EXPLAIN, GATE_BUDGETS };

/** A neighbour that user space is asked to resolve; of IPv4 the rest is zero. */
struct gate_asked {
	__u32 ifindex;
	union gate_addr ip;
};

/* Next hops that user space knows for certain, by the side they leave by. Whatever is not here is asked of the kernel, packet by packet. */
#define GATE_HOP_PREFIXES    16
#define GATE_HOP_BUCKET_BITS 7
#define GATE_HOP_WAYS        2
#define GATE_HOP_HASH(ip)    ((__u32)((ip)*0x9e3779b1u) >> (32 - GATE_HOP_BUCKET_BITS))
enum gate_hop_kind { GATE_HOP_ASK = 0, GATE_HOP_NEXT };

struct gate_hop {
	__u32 prefix, mask;
	__u8 dmac[6], smac[6];
	__u16 mtu; /* of the IP packet, host order; what is longer asks */
	__u8 kind; /* enum gate_hop_kind */
	__u8 pad;
};

struct gate_hops {
	struct gate_hop prefix[GATE_HOP_PREFIXES + 1];                   /* longest first; the last matches everything, and asks */
	struct gate_hop host[1u << GATE_HOP_BUCKET_BITS][GATE_HOP_WAYS]; /* on the link; these come first. 0.0.0.0: free */
};

/** The only element of `hops`. */
struct gate_hop_tables {
	__u64 valid_until; /* afterwards everything asks: its writer may be gone */
	__u32 generation;  /* the last bit says which table is in use; raised when the other one has been filled */
	__u32 pad;
	struct gate_hops table[2][GATE_SIDES];
};

enum gate_event_kind { GATE_EVENT_NEIGHBOUR = 1 };
struct gate_event {
	__u32 kind;
	__u32 ifindex;
	__u32 ip6; /* the address is one */
	union gate_addr ip;
};

/** What gate_reap takes as its packet: keys of the `what` table. */
enum gate_reap_what { GATE_REAP_FLOWS = 1, GATE_REAP_MAPPINGS };
#define GATE_REAP_MAX 64
struct gate_reap {
	__u32 what;
	__u32 count;
	struct gate_key key[GATE_REAP_MAX]; /* mappings: local_ip, local_port, proto */
};

struct gate_reap6 {
	__u32 what;
	__u32 count;
	struct gate_key6 key[GATE_REAP_MAX];
};

_Static_assert(sizeof(struct gate_end) == 8, "key");
_Static_assert(sizeof(struct gate_key) == 16, "key");
_Static_assert(sizeof(struct gate_end6) == 20, "key");
_Static_assert(sizeof(struct gate_key6) == 40, "key");
_Static_assert(sizeof(struct gate_prefix_key6) == 20, "key");
_Static_assert(sizeof(struct gate_waiting_key) == 12, "key");
_Static_assert(sizeof(struct gate_waiting_key6) == 36, "key");
_Static_assert(sizeof(struct gate_port) == 8, "port");
_Static_assert(sizeof(struct gate_grant) == 192 && __builtin_offsetof(struct gate_grant, public) == 124, "grant");
_Static_assert(sizeof(struct gate_user) == 64, "user");
_Static_assert(sizeof(struct gate_info) == 128, "info");
_Static_assert(sizeof(struct gate_tcp_end) == 20, "tcp end");
_Static_assert(sizeof(struct gate_track) == 48, "track");
_Static_assert(sizeof(struct gate_flow) == 128, "flow");
_Static_assert(sizeof(struct gate_mapping) == 24, "mapping");
_Static_assert(sizeof(struct gate_embryo) == 64, "embryo");
_Static_assert(sizeof(struct gate_hop) == 24, "hop");
_Static_assert(sizeof(struct gate_hop_tables) == 16 + 4 * 24 * (17 + 256), "hop tables");
_Static_assert(sizeof(struct gate_reap) == 8 + 16 * GATE_REAP_MAX, "reap");
_Static_assert(sizeof(struct gate_reap6) == 8 + 40 * GATE_REAP_MAX, "reap");
_Static_assert(GATE_REASON_COUNT < 128, "counters");

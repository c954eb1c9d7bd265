/* SPDX-License-Identifier: Apache-2.0 */
#include "front/explain.h"

#include <string.h>

static const struct front_explanation explanation[FRONT_OUTCOME_COUNT] = {
	[FRONT_size] = {"The message was too short or too long to be a request.",
			"Over UDP a request may have 8192 bytes at most; a client that needs more takes TCP or TLS."},
	[FRONT_first_bytes] = {"What arrived was not SIP.",
			       "Nothing, unless it came from a client: then it speaks another protocol, or sends "
			       "TLS to a port without."},
	[FRONT_keepalive] = {"A client kept its path through a NAT open.", NULL},
	[FRONT_stranger_budget] = {"So many strangers came that this one was not looked at.",
				   "A flood: see its rate in the metrics. Whoever repeats the request gets through in time."},
	[FRONT_start_line] = {"The first line was not that of a SIP 2.0 request, or its address was too long.",
			      "Look at the Request-URI that the client sends."},
	[FRONT_malformed] = {"The message breaks the rules of SIP, or grew too large on its way on.",
			     "Trace it at the client: a header that must be there is missing, twice there, or unreadable."},
	[FRONT_response] = {"An answer to something that this front has not asked.", "Nothing; if it is many, somebody spoofs this front's "
										     "address elsewhere."},
	[FRONT_unknown_tenant] = {"The request was for a domain that this front does not serve.",
				  "Compare the domain that the client calls with `tenants` in the front's file."},
	[FRONT_method] = {"A method that a front does not serve outside of a call.",
			  "Set the client up without registration: it only has to call."},
	[FRONT_in_dialog_no_token] =
		{"A request within a call did not carry what the front gives to every call.",
		 "The client must send the Route that it got as Record-Route; one that does not cannot end its calls."},
	[FRONT_in_dialog_bad_token] = {"A request within a call carried a token that is forged, a day old, or another address's.",
				       "If the client's address changed during the call, it has to call again."},
	[FRONT_in_dialog_budget] = {"Too many requests within one call.", "The client repeats itself: more than 20 a second are dropped."},
	[FRONT_ack_absorbed] = {"An ACK that ends here, as it should.", NULL},
	[FRONT_cancel_ignored] = {"A CANCEL for a call that is not waiting any more, or never was.", NULL},
	[FRONT_challenged] = {"A call without credentials was asked for them, as every first call is.",
			      "If it goes no further, the client has no name and secret for this realm, or the 407 does not reach it."},
	[FRONT_challenge_too_large] = {"The challenge would have been longer than the request, so none was sent.",
				       "Let the client pad its INVITE, or call over TCP or TLS."},
	[FRONT_credentials_malformed] = {"The credentials could not be read.", "Trace the client's Proxy-Authorization header."},
	[FRONT_realm] = {"The credentials were for another realm.",
			 "The client pins a realm: let it take the one of the challenge, or set `rotate: off` for the tenant."},
	[FRONT_algorithm] = {"The client chose an algorithm that this tenant does not take.",
			     "Enable SHA-256 in the client, or set `algorithms` for the tenant and add the user with --md5."},
	[FRONT_nonce_malformed] = {"The answer was to a challenge that no front gives.",
				   "Nothing: the client was asked again. If it goes on, it makes up nonces or cuts them off."},
	[FRONT_nonce_foreign] = {"The answer was to another front's challenge, or came from another address than the challenge went to.",
				 "Nothing: the client was asked again. If it goes on, its NAT changes addresses: use TCP or TLS."},
	[FRONT_nonce_expired] =
		{"The answer came too late.",
		 "Nothing: the client was asked again. If it goes on, raise nonce_lifetime_s, or nonce_ring_bits under a flood."},
	[FRONT_nonce_exhausted] = {"A wrong answer, and not the first to the same challenge.",
				   "The secret is wrong, or somebody guesses: see who is at that address."},
	[FRONT_nonce_shape] = {"The answer lacked what must be in it, or counted a challenge twice.",
			       "The client must send qop, cnonce and nc=00000001: one challenge, one call."},
	[FRONT_retransmission] = {"The same request again; it got the same answer.", NULL},
	[FRONT_epoch] = {"The answer was for a day's keys that are over.",
			 "Nothing: the client was asked again. If it goes on, a clock is wrong, or the client pins the realm."},
	[FRONT_unknown_user] =
		{"This front knows no such user, or none who may use this algorithm.",
		 "`walnut user list` at the agent shows who there is; `walnut user add` (--md5) adds one. If the user is there, "
		 "compare the feed's sequence in `walnut status` at agent and front."},
	[FRONT_digest] = {"The secret was wrong.", "Let the person join again with a fresh line of `walnut user add`."},
	[FRONT_uri_mismatch] = {"The credentials were made for another address than the one called.",
				"A proxy in between rewrites the Request-URI, or the client signs another one; take the proxy out."},
	[FRONT_replay] =
		{"The challenge had been answered before: somebody repeats a request that was seen.",
		 "Nothing for a person: the client must call with a new challenge each time. Otherwise see who is at that address."},
	[FRONT_draining] = {"This front is about to end and takes no new call.",
			    "Nothing: the caller finds another front, or this one when it has been started again."},
	[FRONT_feed_stale] = {"The user is right, but this front has not heard of its agent for too long to be sure.",
			      "See that the agent runs and reaches this front, and that both clocks agree: `walnut status`."},
	[FRONT_user_budget] = {"The user is right, but calls too often.",
			       "The client repeats itself, or raise user_calls_per_s for the tenant."},
	[FRONT_service_budget] = {"The user is right, but the service is called too often by all together.",
				  "Raise service_calls_per_s for the tenant, if the service can bear it."},
	[FRONT_call_limit] = {"The user is right, but too many calls of the tenant are waiting for an answer or an ACK.",
			      "Raise max_calls for the tenant, or find out why its agent answers so slowly."},
	[FRONT_no_agent] = {"The tenant's agent is not connected to this front, or does not read what it is sent.",
			    "Start walnut-agent, and look at its log; callers meanwhile find another front."},
	[FRONT_no_hop] =
		{"The service's next hop could not be sent to.",
		 "See that its address in `services` is right and that there is a route to it; callers meanwhile find another front."},
	[FRONT_too_many_hops] = {"The request had passed too many proxies.", "There is a loop, or the client sets Max-Forwards to 0."},
	[FRONT_forwarded] = {"The user was right and the call went on to the service.", NULL},
	[FRONT_forwarded_open] = {"The service asks for no proof, and the call went on to it.", NULL},
	[FRONT_forwarded_in_dialog] = {"A request within a call went on.", NULL},
	[FRONT_cancelled] = {"The caller gave up before there was an answer.", NULL},
	[FRONT_relayed_response] = {"The service's side gave this answer; the front only passed it on.",
				    "Look in the agent's log, or the service's: the decision was made there."},
	[FRONT_relayed_request] = {"A request of the service's side went to the client.", NULL},
	[FRONT_response_dropped] = {"A message of the service's side belonged to no call.",
				    "Nothing, if few: it came after the call's end. Otherwise look in the agent's log."},
	[FRONT_hop_repeated] = {"A next hop had not answered yet and was asked again.", NULL},
	[FRONT_timed_out] = {"The user was right, but the service's side did not answer in time, or went away.",
			     "See that the agent is connected and not overloaded: `walnut status`."},
};

const struct front_explanation *front_explain(enum front_outcome o)
{
	return &explanation[o];
}

int front_outcome_find(const char *name)
{
	static const char *const names[] = {
#define X(n) [FRONT_##n] = #n,
		FRONT_OUTCOMES(X)
#undef X
	};

	for (int i = 0; i < (int)FRONT_OUTCOME_COUNT; i++)
		if (strcmp(names[i], name) == 0)
			return i;
	return -1;
}

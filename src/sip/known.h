/* SPDX-License-Identifier: Apache-2.0 */
/** \file The headers that every message must have, and those whose value sip_parse looks at. Only for src/sip. */
#pragma once

#include "sip/msg.h"

/** Fills what sip_msg keeps of Via, CSeq, From, To, Call-ID and Max-Forwards from m->hdr. */
enum sip_verdict sip_known_headers(struct sip_msg *m, bool vector);

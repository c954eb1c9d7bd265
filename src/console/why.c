/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "console/call.h"
#include "console/verbs.h"
#include "front/explain.h"

#define USAGE "why [--json] [--socket PATH] [CALL-ID | USER]"

static bool empty(const json_t *v)
{
	return json_string_length(v) == 0;
}

static void print_one(const json_t *d)
{
	const json_t *user = json_object_get(d, "user"), *domain = json_object_get(d, "domain"), *call = json_object_get(d, "call_id");
	const char *name = json_string_value(json_object_get(d, "outcome"));
	int o = name != NULL ? front_outcome_find(name) : -1;
	char text[512];

	printf("%s ago: ", call_duration(call_number(d, "age_ms") / 1000, text, sizeof(text)));
	printf("%s", call_text(json_object_get(d, "outcome"), text, sizeof(text)));
	if (call_number(d, "status") > 0)
		printf(" %llu", (unsigned long long)call_number(d, "status"));
	if (!empty(user))
		printf(", user %s%s", call_text(user, text, sizeof(text)), json_is_true(json_object_get(d, "proven")) ? "" : " (claimed)");
	if (!empty(domain))
		printf(", at %s", call_text(domain, text, sizeof(text)));
	printf(", from %s", call_text(json_object_get(d, "from"), text, sizeof(text)));
	if (!empty(call))
		printf(", Call-ID %s", call_text(call, text, sizeof(text)));
	putchar('\n');
	/* a newer front's outcome may have no words here */
	if (o < 0)
		return;
	printf("  %s\n", front_explain((enum front_outcome)o)->what);
	if (front_explain((enum front_outcome)o)->mend != NULL)
		printf("  %s\n", front_explain((enum front_outcome)o)->mend);
}

int cmd_why(int argc, char **argv)
{
	struct call_options o;
	const json_t *denials;
	json_t *answer;
	int rc = call_options("why", USAGE, argc, argv, CALL_OPT_SOCKET | CALL_OPT_JSON, 0, 1, &o);

	if (rc != 0)
		return rc < 0 ? 2 : 0;
	/* the front says no to what is no UTF-8 */
	if (call_daemon("why", o.socket != NULL ? o.socket : CALL_SOCKET_FRONT,
			json_pack("{s:s, s:s*}", "cmd", "why", "about", o.nargs > 0 ? o.args[0] : NULL), &answer) != 0)
		return 1;
	denials = json_object_get(answer, "denials");
	if (o.json)
		call_print_json(answer);
	else
		for (size_t i = 0; i < json_array_size(denials); i++)
			print_one(json_array_get(denials, i));
	if (!o.json && json_array_size(denials) == 0)
		fprintf(stderr,
			"walnut why: this front remembers no refusal%s; it keeps the last ones only, and the caller may have come to "
			"another "
			"front, or never have been refused\n",
			o.nargs > 0 ? " of that call or user" : "");
	json_decref(answer);
	return 0;
}

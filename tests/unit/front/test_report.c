/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "front/report.h"
#include "prometheus.h"

static struct front_report r;

static void fill(void)
{
	static struct histogram h, answers;
	uint64_t ns = 100;

	memset(&r, 0, sizeof(r));
	r.uptime_s = 12;
	r.workers = 2;
	for (unsigned o = 0; o < FRONT_OUTCOME_COUNT; o++)
		r.outcome[o] = o * 10;
	for (unsigned i = 0; i < 40; i++, ns = ns * 8 / 5)
		histogram_add(&h, ns);
	histogram_merge(&r.latency[FRONT_challenged], &h);
	histogram_add(&answers, 2000000000);
	histogram_add(&answers, 3000000);
	histogram_merge(&r.call_answer, &answers);
	r.worker_messages[1] = 77;
	r.transactions = 5;
	r.unsent = UINT64_MAX;
	r.has_streams = true;
	r.stream_open[STREAM_TRUSTED] = 9;
	r.stream[FRONT_STREAM_accepted] = 11;
	r.ntenants = 2;
	r.tenant[0] = (struct front_report_tenant){"example.org", true, 1000000, 42, 1, 3};
	r.tenant[1] = (struct front_report_tenant){"odd\"\\\nname", false, 0, 0, 0, -1};
}

static void test_text(void **state)
{
	char name[128], *text;
	size_t n;

	(void)state;
	fill();
	n = front_metrics_text(&r, &text);
	prometheus_check(text, n);
	for (unsigned o = 0; o < FRONT_OUTCOME_COUNT; o++) {
		snprintf(name, sizeof(name), "walnut_front_outcomes_total{outcome=\"%s\"}", front_outcome_name((enum front_outcome)o));
		assert_true(prometheus_value(text, name) == o * 10);
		snprintf(name, sizeof(name), "walnut_front_decision_seconds_count{outcome=\"%s\"}",
			 front_outcome_name((enum front_outcome)o));
		assert_true(prometheus_value(text, name) == (o == FRONT_challenged ? 40 : 0));
	}
	assert_true(prometheus_value(text, "walnut_front_decision_seconds_bucket{outcome=\"challenged\",le=\"0.000000256\"}") == 2);
	assert_true(prometheus_value(text, "walnut_front_decision_seconds_bucket{outcome=\"challenged\",le=\"+Inf\"}") == 40);
	assert_true(prometheus_value(text, "walnut_front_call_answer_seconds_sum") == 2.003);
	assert_true(prometheus_value(text, "walnut_front_call_answer_seconds_bucket{le=\"0.004194304\"}") == 1);
	assert_true(prometheus_value(text, "walnut_front_call_answer_seconds_bucket{le=\"2.147483648\"}") == 2);
	assert_true(prometheus_value(text, "walnut_front_worker_messages_total{worker=\"1\"}") == 77);
	assert_true(prometheus_value(text, "walnut_front_transactions") == 5);
	assert_true(prometheus_value(text, "walnut_front_connections{class=\"user\"}") == 9);
	assert_true(prometheus_value(text, "walnut_front_connection_events_total{event=\"accepted\"}") == 11);
	assert_true(prometheus_value(text, "walnut_front_users{tenant=\"example.org\"}") == 1000000);
	assert_true(prometheus_value(text, "walnut_front_agent_connected{tenant=\"example.org\"}") == 1);
	assert_true(prometheus_value(text, "walnut_front_feed_age_seconds{tenant=\"odd\\\"\\\\\\nname\"}") == -1);
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_text)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "base/config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>
#include <yaml.h>

#define FILE_MAX  (1u << 20)
#define PATH_CAP  256
#define VALUE_CAP 48
#define LIST_CAP  400

struct text {
	char *p;
	size_t n;
};

/* One walk of a document along its schema. */
struct walk {
	const char *file;
	yaml_document_t *doc;
	char path[PATH_CAP]; /* dotted, of the value that is being looked at */
};

/* Why libcyaml refused what the walk had accepted. */
struct cyaml_why {
	char message[160];
	unsigned long line;
};

/* Everything that is printed goes through here: one line, whatever the file holds. */
__attribute__((format(printf, 4, 0))) static void print_line(const char *file, long line, const char *key, const char *fmt, va_list ap)
{
	char buf[1024];
	size_t n;

	if (line >= 0)
		snprintf(buf, sizeof(buf), "%s:%ld: %s%s", file, line, key, key[0] != 0 ? ": " : "");
	else
		snprintf(buf, sizeof(buf), "%s: ", file);
	n = strlen(buf);
	vsnprintf(buf + n, sizeof(buf) - n, fmt, ap);
	for (char *p = buf; *p != 0; p++)
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			*p = '?';
	fprintf(stderr, "%s\n", buf);
}

__attribute__((format(printf, 4, 5))) static int bad(const char *file, long line, const char *key, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	print_line(file, line, key, fmt, ap);
	va_end(ap);
	return -EINVAL;
}

static int read_all(const char *file, struct text *t)
{
	int fd, rc = 0;

	t->p = NULL;
	t->n = 0;
	fd = open(file, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	t->p = (char *)malloc(FILE_MAX + 1);
	if (t->p == NULL)
		rc = -ENOMEM;
	while (rc == 0) {
		ssize_t k = read(fd, t->p + t->n, FILE_MAX + 1 - t->n);

		if (k < 0 && errno == EINTR)
			continue;
		if (k < 0)
			rc = -errno;
		if (k <= 0)
			break;
		t->n += (size_t)k;
		if (t->n > FILE_MAX)
			rc = -EFBIG;
	}
	close(fd);
	if (rc < 0) {
		free(t->p);
		t->p = NULL;
	}
	return rc;
}

static long line_of(const yaml_node_t *n)
{
	return (long)n->start_mark.line + 1;
}

static bool scalar_is(const yaml_node_t *n, const char *s)
{
	return n->type == YAML_SCALAR_NODE && n->data.scalar.length == strlen(s) && memcmp(n->data.scalar.value, s, strlen(s)) == 0;
}

/* The beginning of what stands there, in quotes. */
static const char *shown(const yaml_node_t *n, char buf[static VALUE_CAP])
{
	size_t k;

	if (n->type == YAML_MAPPING_NODE)
		return "a mapping";
	if (n->type == YAML_SEQUENCE_NODE)
		return "a list";
	k = n->data.scalar.length;
	if (k == 0)
		return "nothing";
	snprintf(buf, VALUE_CAP, "\"%.*s%s\"", (int)(k > 40 ? 40 : k), (const char *)n->data.scalar.value, k > 40 ? "..." : "");
	return buf;
}

static void list_add(char buf[static LIST_CAP], const char *word)
{
	size_t n = strlen(buf);

	snprintf(buf + n, LIST_CAP - n, "%s%s", n > 0 ? ", " : "", word);
}

static uint64_t uint_max(uint32_t bytes)
{
	return bytes >= 8 ? UINT64_MAX : (UINT64_C(1) << (8 * bytes)) - 1;
}

/* "what would be right" for a value. */
static const char *wanted(const cyaml_schema_value_t *v, char buf[static LIST_CAP])
{
	char words[LIST_CAP] = "";

	switch (v->type) {
	case CYAML_UINT:
		snprintf(buf, LIST_CAP, "a whole number from 0 to %llu", (unsigned long long)uint_max(v->data_size));
		return buf;
	case CYAML_INT:
		return "a whole number";
	case CYAML_BOOL:
		return "true or false";
	case CYAML_FLOAT:
		return "a number";
	case CYAML_STRING:
		if (v->string.max == CYAML_UNLIMITED || v->string.max > 100000)
			return v->string.min > 0 ? "a text that is not empty" : "a text";
		snprintf(buf, LIST_CAP, "a text of %u to %u characters", v->string.min, v->string.max);
		return buf;
	case CYAML_ENUM:
		for (uint32_t i = 0; i < v->enumeration.count; i++)
			list_add(words, v->enumeration.strings[i].str);
		snprintf(buf, LIST_CAP, "one of: %.380s", words);
		return buf;
	case CYAML_FLAGS:
		for (uint32_t i = 0; i < v->enumeration.count; i++)
			list_add(words, v->enumeration.strings[i].str);
		snprintf(buf, LIST_CAP, "a list of any of: %.370s", words);
		return buf;
	case CYAML_MAPPING:
		for (const cyaml_schema_field_t *f = v->mapping.fields; f->key != NULL; f++)
			list_add(words, f->key);
		snprintf(buf, LIST_CAP, "a mapping with the keys %.370s", words);
		return buf;
	case CYAML_SEQUENCE:
	case CYAML_SEQUENCE_FIXED:
		return "a list, such as [a, b]";
	default:
		return "something else";
	}
}

static int bad_value(struct walk *w, const yaml_node_t *n, const cyaml_schema_value_t *v)
{
	char got[VALUE_CAP], want[LIST_CAP];

	return bad(w->file, line_of(n), w->path, "is %s; must be %s", shown(n, got), wanted(v, want));
}

static bool decimal(const char *s, size_t n, uint64_t max)
{
	uint64_t v = 0;

	if (n == 0 || (n > 1 && s[0] == '0'))
		return false; /* libcyaml would take 010 for 8 */
	for (size_t i = 0; i < n; i++) {
		uint64_t d = (uint64_t)(s[i] - '0');

		if (s[i] < '0' || s[i] > '9' || v > (max - d) / 10)
			return false;
		v = v * 10 + d;
	}
	return v <= max;
}

static int check_scalar(struct walk *w, const yaml_node_t *n, const cyaml_schema_value_t *v)
{
	const char *s = (const char *)n->data.scalar.value;
	size_t k = n->data.scalar.length;
	uint64_t max = uint_max(v->data_size);
	bool ok = true;

	switch (v->type) {
	case CYAML_UINT:
		ok = decimal(s, k, max);
		break;
	case CYAML_INT:
		ok = k > 0 && s[0] == '-' ? decimal(s + 1, k - 1, max / 2 + 1) : decimal(s, k, max / 2);
		break;
	case CYAML_BOOL:
		/* libcyaml takes every word that it does not know for true, "off" included. */
		ok = scalar_is(n, "true") || scalar_is(n, "false") || scalar_is(n, "yes") || scalar_is(n, "no");
		break;
	case CYAML_STRING:
		ok = memchr(s, 0, k) == NULL && k >= v->string.min && (v->string.max == CYAML_UNLIMITED || k <= v->string.max);
		break;
	case CYAML_ENUM:
		ok = false;
		for (uint32_t i = 0; i < v->enumeration.count && !ok; i++)
			ok = scalar_is(n, v->enumeration.strings[i].str);
		break;
	case CYAML_MAPPING:
	case CYAML_SEQUENCE:
	case CYAML_SEQUENCE_FIXED:
	case CYAML_FLAGS:
	case CYAML_BITFIELD:
		ok = false;
		break;
	default:
		break; /* floats and the like: libcyaml's word stands */
	}
	return ok ? 0 : bad_value(w, n, v);
}

static int check(struct walk *w, const yaml_node_t *n, const cyaml_schema_value_t *v);

static const yaml_node_t *node(yaml_document_t *doc, int index)
{
	return yaml_document_get_node(doc, index);
}

static const cyaml_schema_field_t *field_of(const cyaml_schema_value_t *v, const yaml_node_t *key)
{
	for (const cyaml_schema_field_t *f = v->mapping.fields; f->key != NULL; f++)
		if (scalar_is(key, f->key))
			return f;
	return NULL;
}

static const yaml_node_pair_t *pair_of(yaml_document_t *doc, const yaml_node_t *map, const char *key)
{
	for (const yaml_node_pair_t *p = map->data.mapping.pairs.start; p < map->data.mapping.pairs.top; p++)
		if (scalar_is(node(doc, p->key), key))
			return p;
	return NULL;
}

static int check_mapping(struct walk *w, const yaml_node_t *n, const cyaml_schema_value_t *v)
{
	size_t len = strlen(w->path);
	const char *dot = len > 0 ? "." : "";
	char want[LIST_CAP] = "";
	int rc;

	for (const yaml_node_pair_t *p = n->data.mapping.pairs.start; p < n->data.mapping.pairs.top; p++) {
		const yaml_node_t *key = node(w->doc, p->key);
		const cyaml_schema_field_t *f = field_of(v, key);

		if (f == NULL) {
			for (f = v->mapping.fields; f->key != NULL; f++)
				list_add(want, f->key);
			snprintf(w->path + len, PATH_CAP - len, "%s%.64s", dot,
				 key->type == YAML_SCALAR_NODE ? (const char *)key->data.scalar.value : "?");
			return bad(w->file, line_of(key), w->path, "unknown key; known here: %s", want);
		}
		snprintf(w->path + len, PATH_CAP - len, "%s%s", dot, f->key);
		if (node(w->doc, pair_of(w->doc, n, f->key)->key) != key)
			return bad(w->file, line_of(key), w->path, "given twice; keep one of the two lines");
		rc = check(w, node(w->doc, p->value), &f->value);
		if (rc < 0)
			return rc;
		w->path[len] = 0;
	}
	for (const cyaml_schema_field_t *f = v->mapping.fields; f->key != NULL; f++) {
		if ((f->value.flags & CYAML_FLAG_OPTIONAL) != 0 || pair_of(w->doc, n, f->key) != NULL)
			continue;
		snprintf(w->path + len, PATH_CAP - len, "%s%s", dot, f->key);
		return bad(w->file, line_of(n), w->path, "missing; must be %s", wanted(&f->value, want));
	}
	return 0;
}

static int check_sequence(struct walk *w, const yaml_node_t *n, const cyaml_schema_value_t *v)
{
	size_t len = strlen(w->path), count = (size_t)(n->data.sequence.items.top - n->data.sequence.items.start);
	int rc;

	if (count < v->sequence.min)
		return bad(w->file, line_of(n), w->path, "has %zu entries; must have at least %u", count, v->sequence.min);
	if (count > v->sequence.max)
		return bad(w->file, line_of(n), w->path, "has %zu entries; may have at most %u", count, v->sequence.max);
	for (size_t i = 0; i < count; i++) {
		snprintf(w->path + len, PATH_CAP - len, "[%zu]", i);
		rc = check(w, node(w->doc, n->data.sequence.items.start[i]), v->sequence.entry);
		if (rc < 0)
			return rc;
	}
	w->path[len] = 0;
	return 0;
}

static int check(struct walk *w, const yaml_node_t *n, const cyaml_schema_value_t *v)
{
	if (v->type == CYAML_IGNORE)
		return 0;
	if (n->type == YAML_SCALAR_NODE)
		return check_scalar(w, n, v);
	if (n->type == YAML_MAPPING_NODE && v->type == CYAML_MAPPING)
		return check_mapping(w, n, v);
	if (n->type == YAML_SEQUENCE_NODE && (v->type == CYAML_SEQUENCE || v->type == CYAML_SEQUENCE_FIXED))
		return check_sequence(w, n, v);
	if (v->type == CYAML_FLAGS || v->type == CYAML_BITFIELD)
		return 0;
	return bad_value(w, n, v);
}

static long count_lines(const struct text *t)
{
	long n = 1;

	for (size_t i = 0; i + 1 < t->n; i++)
		n += t->p[i] == '\n';
	return n;
}

static int bad_yaml(const char *file, const struct text *t, const yaml_parser_t *p)
{
	const char *problem = p->problem != NULL ? p->problem : "unreadable";
	long line = (long)p->problem_mark.line + 1;
	const char *mend = "check indentation, colons, quotes and brackets here and just above";

	/* For libyaml what ends too early ends on the line after the last. */
	if (line > count_lines(t))
		line = count_lines(t);
	if (p->error == YAML_MEMORY_ERROR)
		return bad(file, line, "YAML", "out of memory");
	if (strstr(problem, "tab") != NULL || strstr(problem, "cannot start any token") != NULL)
		mend = "indent with spaces, never with tabs, and put quotes around values that begin with a special character";
	if (p->error == YAML_READER_ERROR) {
		line = 1;
		mend = "the file must be UTF-8 text without control characters";
	}
	return bad(file, line, "YAML", "%s%s%s; %s", problem, p->context != NULL ? " " : "", p->context != NULL ? p->context : "", mend);
}

/* Parses the one document of a file. On success the caller deletes *doc. */
static int parse(const char *file, const struct text *t, yaml_document_t *doc, bool quiet)
{
	yaml_parser_t parser;
	yaml_document_t more;
	int rc = 0;

	if (!yaml_parser_initialize(&parser))
		return -ENOMEM;
	yaml_parser_set_input_string(&parser, (const unsigned char *)t->p, t->n);
	if (!yaml_parser_load(&parser, doc)) {
		rc = quiet ? -EINVAL : bad_yaml(file, t, &parser);
		goto out;
	}
	if (yaml_document_get_root_node(doc) == NULL) {
		rc = quiet ? -EINVAL : bad(file, 1, "YAML", "the file is empty; see the examples of the manual page");
	} else if (!yaml_parser_load(&parser, &more)) {
		rc = quiet ? 0 : bad_yaml(file, t, &parser);
	} else {
		if (yaml_document_get_root_node(&more) != NULL && !quiet)
			rc = bad(file, line_of(yaml_document_get_root_node(&more)), "YAML",
				 "a second document begins here; a file holds one, so remove the line \"---\"");
		yaml_document_delete(&more);
	}
	if (rc < 0)
		yaml_document_delete(doc);
out:
	yaml_parser_delete(&parser);
	return rc;
}

__attribute__((format(printf, 3, 0))) static void cyaml_said(cyaml_log_t level, void *ctx, const char *fmt, va_list ap)
{
	struct cyaml_why *why = (struct cyaml_why *)ctx;
	char buf[160];
	const char *at;

	if (level < CYAML_LOG_ERROR)
		return;
	vsnprintf(buf, sizeof(buf), fmt, ap);
	buf[strcspn(buf, "\n")] = 0;
	at = strstr(buf, "(line: ");
	if (why->message[0] == 0)
		memcpy(why->message, buf, sizeof(buf));
	else if (at != NULL && why->line == 0)
		why->line = strtoul(at + 7, NULL, 10);
}

int wn_config_read(const char *file, char **text, size_t *n)
{
	struct text t;
	int rc = read_all(file, &t);

	if (rc < 0) {
		bad(file, -1, "", "cannot be read: %s; give a file that is there and that this user may read", strerror(-rc));
		return rc;
	}
	*text = t.p;
	*n = t.n;
	return 0;
}

static int load_document(const char *file, struct text *t, yaml_document_t *doc)
{
	int rc = wn_config_read(file, &t->p, &t->n);

	if (rc < 0)
		return rc;
	rc = parse(file, t, doc, false);
	if (rc < 0)
		free(t->p);
	return rc;
}

static const cyaml_config_t plain = {.mem_fn = cyaml_mem, .log_level = CYAML_LOG_ERROR};

int wn_config_load_text(const char *file, const char *text, size_t n, const cyaml_schema_value_t *schema, void **out)
{
	const struct text t = {(char *)(uintptr_t)text, n};
	struct cyaml_why why = {0};
	cyaml_config_t cfg = plain;
	struct walk w = {.file = file};
	yaml_document_t doc;
	cyaml_err_t err;
	int rc;

	*out = NULL;
	rc = parse(file, &t, &doc, false);
	if (rc < 0)
		return rc;
	w.doc = &doc;
	rc = check(&w, yaml_document_get_root_node(&doc), schema);
	yaml_document_delete(&doc);
	if (rc < 0)
		return rc;
	cfg.log_fn = cyaml_said;
	cfg.log_ctx = &why;
	err = cyaml_load_data((const uint8_t *)t.p, t.n, &cfg, schema, out, NULL);
	if (err != CYAML_OK)
		rc = bad(file, (long)why.line, "", "%s", why.message[0] != 0 ? why.message : cyaml_strerror(err));
	return rc;
}

int wn_config_load(const char *file, const cyaml_schema_value_t *schema, void **out)
{
	char *text;
	size_t n;
	int rc = wn_config_read(file, &text, &n);

	*out = NULL;
	if (rc < 0)
		return rc;
	rc = wn_config_load_text(file, text, n, schema, out);
	free(text);
	return rc;
}

int wn_config_has(const char *file, const char *key)
{
	yaml_document_t doc;
	const yaml_node_t *root;
	struct text t;
	int rc = load_document(file, &t, &doc);

	if (rc < 0)
		return rc;
	root = yaml_document_get_root_node(&doc);
	rc = root->type == YAML_MAPPING_NODE && pair_of(&doc, root, key) != NULL;
	yaml_document_delete(&doc);
	free(t.p);
	return rc;
}

void wn_config_free(const cyaml_schema_value_t *schema, void *data)
{
	cyaml_free(&plain, schema, data, 0);
}

/* The line of the deepest part of `path` that the document has. */
static long find_line(yaml_document_t *doc, const char *path)
{
	const yaml_node_t *n = yaml_document_get_root_node(doc);
	long line = line_of(n);

	while (*path != 0) {
		if (*path == '[') {
			char *end;
			unsigned long i = strtoul(path + 1, &end, 10);

			if (n->type != YAML_SEQUENCE_NODE || i >= (size_t)(n->data.sequence.items.top - n->data.sequence.items.start))
				break;
			n = node(doc, n->data.sequence.items.start[i]);
			line = line_of(n);
			path = *end == ']' ? end + 1 : end;
		} else {
			const yaml_node_pair_t *p = NULL;
			char key[64];
			size_t k;

			path += *path == '.';
			k = strcspn(path, ".[");
			if (k == 0 || k >= sizeof(key))
				break;
			memcpy(key, path, k);
			key[k] = 0;
			if (n->type == YAML_MAPPING_NODE)
				p = pair_of(doc, n, key);
			if (p == NULL)
				break;
			line = line_of(node(doc, p->key));
			n = node(doc, p->value);
			path += k;
		}
	}
	return line;
}

int wn_config_bad(const char *file, const char *key, const char *fmt, ...)
{
	yaml_document_t doc;
	struct text t;
	long line = 0;
	va_list ap;

	if (read_all(file, &t) == 0) {
		if (parse(file, &t, &doc, true) == 0) {
			line = find_line(&doc, key);
			yaml_document_delete(&doc);
		}
		free(t.p);
	}
	va_start(ap, fmt);
	print_line(file, line, key, fmt, ap);
	va_end(ap);
	return -EINVAL;
}

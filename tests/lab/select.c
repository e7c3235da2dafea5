/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the test harness of Linux 6.1 lacks and later ones have: -l lists the tests, -r FIXTURE.VARIANT.TEST runs one.
 * hmm-tests.sh appends it to hmm-tests.c, whose own main is called harness_main then.
 */
#undef main

static int list_tests(void)
{
	fprintf(stderr, "%-20s %-25s %s\n", "# FIXTURE", "VARIANT", "TEST");
	for (struct __fixture_metadata *f = __fixture_list; f; f = f->next) {
		for (struct __fixture_variant_metadata *v = f->variant; v; v = v->next)
			fprintf(stderr, "%-20s %s\n", f->name, v->name);
		for (struct __test_metadata *t = f->tests; t; t = t->next)
			fprintf(stderr, "%-20s %-25s %s\n", f->name, "", t->name);
	}
	return 0;
}

/* Leaves nothing else in the harness' lists. */
static bool select_test(const char *wanted)
{
	char name[256];

	for (struct __fixture_metadata *f = __fixture_list; f; f = f->next)
		for (struct __fixture_variant_metadata *v = f->variant; v; v = v->next)
			for (struct __test_metadata *t = f->tests; t; t = t->next) {
				snprintf(name, sizeof(name), "%s.%s.%s", f->name, v->name, t->name);
				if (strcmp(name, wanted))
					continue;
				f->next = NULL;
				f->variant = v;
				f->tests = t;
				v->next = NULL;
				t->next = NULL;
				__fixture_list = f;
				return true;
			}
	return false;
}

int main(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], "-l"))
		return list_tests();
	if (argc == 3 && !strcmp(argv[1], "-r") && select_test(argv[2]))
		return harness_main(1, argv);
	fprintf(stderr, "usage: %s -l | -r FIXTURE.VARIANT.TEST\n", argv[0]);
	return 2;
}

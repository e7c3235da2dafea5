/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A build tool: makes of gcc's .BTF section what the kernel's own BTF is like, where gcc falls
 * short of it. Each string is stored once (gcc repeats them), and enum hmm_pfn_flags, whose values
 * need 64 bits, has its values (gcc 12 knows no BTF_KIND_ENUM64 and leaves such an enum empty).
 * The format: Documentation/bpf/btf.rst.
 *
 *	btf IN OUT
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernel.h"

struct btf_header { uint16_t magic; uint8_t version, flags; u32 hdr_len, type_off, type_len, str_off, str_len; };
struct btf_type { u32 name_off, info, size; };

enum { INT = 1, PTR, ARRAY, STRUCT, UNION, ENUM, FUNC_PROTO = 13, VAR, DATASEC, DECL_TAG = 17, ENUM64 = 19, NR_BTF };

/* What follows a struct btf_type: so many words, and for each of its vlen members so many. */
static const struct { unsigned char fixed, each; bool named; } layout[NR_BTF] = {
	[INT] = { 1, 0, false },	[ARRAY] = { 3, 0, false },    [STRUCT] = { 0, 3, true },
	[UNION] = { 0, 3, true },	[ENUM] = { 0, 2, true },      [FUNC_PROTO] = { 0, 2, true },
	[VAR] = { 1, 0, false },	[DATASEC] = { 0, 3, false },  [DECL_TAG] = { 1, 0, false },
	[ENUM64] = { 0, 3, true },
};

#define FLAG(name) { #name, name }
static const struct { const char *name; u64 value; } pfn_flags[] = {
	FLAG(HMM_PFN_VALID),	  FLAG(HMM_PFN_WRITE),	    FLAG(HMM_PFN_ERROR),     FLAG(HMM_PFN_DMA_MAPPED),
	FLAG(HMM_PFN_P2PDMA),	  FLAG(HMM_PFN_REQ_FAULT),  FLAG(HMM_PFN_REQ_WRITE),
};

struct buffer { char *bytes; u32 used, size; };

static struct buffer types, strings;

static u32 append(struct buffer *buffer, const void *bytes, size_t number)
{
	u32 at = buffer->used;

	if (buffer->used + number > buffer->size) {
		buffer->size = 2 * (buffer->used + number);
		buffer->bytes = realloc(buffer->bytes, buffer->size);
	}
	memcpy(buffer->bytes + at, bytes, number);
	buffer->used += number;
	return at;
}

/* Where the string stands, which it does once. */
static u32 intern(const char *string)
{
	for (u32 at = 0; at < strings.used; at += strlen(strings.bytes + at) + 1)
		if (!strcmp(strings.bytes + at, string))
			return at;
	return append(&strings, string, strlen(string) + 1);
}

static bool is_empty_pfn_flags(const struct btf_type *type, const char *name)
{
	return type->info == ENUM << 24 && type->size == sizeof(u64) && !strcmp(name, "hmm_pfn_flags");
}

static void write_pfn_flags(const char *name)
{
	struct btf_type type = { intern(name), (u32)ENUM64 << 24 | ARRAY_SIZE(pfn_flags), sizeof(u64) };

	append(&types, &type, sizeof(type));
	for (size_t i = 0; i < ARRAY_SIZE(pfn_flags); i++) {
		u32 member[] = { intern(pfn_flags[i].name), pfn_flags[i].value, pfn_flags[i].value >> 32 };

		append(&types, member, sizeof(member));
	}
}

/* Copies one type with its names moved; returns how many bytes it took. */
static size_t copy_type(const char *at, const char *names)
{
	struct btf_type type;
	unsigned int kind, members;
	const u32 *word = (const u32 *)(at + sizeof(type));

	memcpy(&type, at, sizeof(type));
	kind = type.info >> 24 & 0x1f;
	members = type.info & 0xffff;
	if (kind >= NR_BTF) {
		fprintf(stderr, "btf: unknown kind %u\n", kind);
		exit(1);
	}
	if (is_empty_pfn_flags(&type, names + type.name_off)) {
		write_pfn_flags(names + type.name_off);
		return sizeof(type);
	}
	type.name_off = intern(names + type.name_off);
	append(&types, &type, sizeof(type));
	append(&types, word, 4 * layout[kind].fixed);
	word += layout[kind].fixed;
	for (unsigned int i = 0; i < members; i++, word += layout[kind].each) {
		u32 name = layout[kind].named ? intern(names + word[0]) : word[0];

		append(&types, &name, layout[kind].each ? sizeof(name) : 0);
		if (layout[kind].each)
			append(&types, word + 1, 4 * (layout[kind].each - 1));
	}
	return (const char *)word - at;
}

static char *read_section(const char *path)
{
	static char section[1 << 22];
	FILE *file = fopen(path, "rb");
	size_t size = file ? fread(section, 1, sizeof(section), file) : 0;
	const struct btf_header *header = (void *)section;

	if (size < sizeof(*header) || header->magic != 0xeb9f || size == sizeof(section)) {
		fprintf(stderr, "btf: %s is no BTF\n", path);
		exit(1);
	}
	fclose(file);
	return section;
}

static int write_section(const char *path, struct btf_header header)
{
	FILE *file = fopen(path, "wb");

	header.hdr_len = sizeof(header);
	header.type_off = 0;
	header.type_len = header.str_off = types.used;
	header.str_len = strings.used;
	if (!file)
		return 1;
	fwrite(&header, sizeof(header), 1, file);
	fwrite(types.bytes, types.used, 1, file);
	fwrite(strings.bytes, strings.used, 1, file);
	return ferror(file) | fclose(file);
}

int main(int argc, char **argv)
{
	const struct btf_header *header;
	const char *section, *type, *end;

	if (argc != 3)
		return 2;
	section = read_section(argv[1]);
	header = (const void *)section;
	type = section + header->hdr_len + header->type_off;
	end = type + header->type_len;
	append(&strings, "", 1); /* the empty string comes first */
	while (type < end)
		type += copy_type(type, section + header->hdr_len + header->str_off);
	return write_section(argv[2], *header);
}

/* SPDX-License-Identifier: GPL-2.0-only */
/* Asked for by bcc's helpers. The programs take PAGE_SIZE from the running kernel. */

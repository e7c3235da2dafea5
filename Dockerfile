# SPDX-License-Identifier: Apache-2.0
# hmm-exporter, for amd64 and arm64:  docker build -t hmm-exporter .
#
# It holds what the exporter runs and nothing else: Debian's Python and bcc, no shell, no package manager, no kernel
# headers, no compiler but the one in bcc. Nothing in it is written to; run it with a read-only root.

FROM debian:trixie-slim AS packages
# An empty list of installed packages has apt fetch the C library and all. Their maintainers' scripts do not run: none of
# them does anything that is needed here.
# hadolint ignore=DL3008
RUN apt-get update \
    && mkdir -p /packages/partial \
    && : >/packages/status \
    && apt-get install --yes --no-install-recommends --download-only \
        -o Dir::State::status=/packages/status -o Dir::Cache::archives=/packages \
        base-files python3-bpfcc python3-prometheus-client python3-yaml python3-bcrypt \
    # Dependencies of maintainers' scripts, and of modules that no part of the exporter imports.
    && rm -f /packages/debconf_* /packages/dpkg_* /packages/libdb5* /packages/libsqlite3* /packages/mawk_* \
        /packages/tar_* /packages/tzdata_* \
    && mkdir -p /image/var/lib/dpkg/status.d \
    && for package in /packages/*.deb; do \
        dpkg-deb --extract "$package" /image \
        # For scanners: what the image holds, as in images of Google's distroless.
        && dpkg-deb --field "$package" >"/image/var/lib/dpkg/status.d/$(dpkg-deb --field "$package" Package)" \
        || exit 1; \
    done \
    && apt-get install --yes --no-install-recommends libcap2-bin \
    && rm -rf /packages /var/lib/apt/lists/*
WORKDIR /image/usr
# Licences stay.
RUN find share/doc ! -name copyright ! -type d -delete \
    && rm -rf share/man share/info share/lintian share/locale share/perl5 lib/*/gconv lib/python3.*/test \
        lib/python3.*/ensurepip lib/python3.*/pydoc_data bin/pdb3* bin/py3* bin/pydoc3* bin/pygettext3* \
    && chroot /image python3 -m compileall -q --invalidation-mode unchecked-hash /usr/lib \
    # Kubernetes gives a user other than root its capabilities by a file's permission only; hmm_exporter/capabilities.py
    # has the rest. The loader's Python has none: it is lent what it needs.
    && mkdir -p libexec/hmm-exporter \
    && cp "$(readlink -f bin/python3)" libexec/hmm-exporter/python3 \
    && setcap cap_bpf,cap_perfmon,cap_syslog=p libexec/hmm-exporter/python3 \
    && printf '%s\n' '#!/usr/libexec/hmm-exporter/python3 -I' 'import sys' '' \
        'from hmm_exporter.__main__ import main' '' 'sys.exit(main())' >bin/hmm-exporter \
    && chmod 755 bin/hmm-exporter

FROM packages AS package
COPY hmm_exporter lib/python3/dist-packages/hmm_exporter
RUN chmod -R a+rX lib/python3/dist-packages/hmm_exporter \
    && chroot /image python3 -m compileall -q --invalidation-mode unchecked-hash /usr/lib/python3/dist-packages/hmm_exporter

FROM scratch
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="hmm-exporter" \
    org.opencontainers.image.description="Prometheus exporter for Linux HMM: CPU-GPU shared memory, migrations, faults, thrashing" \
    org.opencontainers.image.source="https://github.com/hmm-exporter/hmm-exporter" \
    org.opencontainers.image.documentation="https://github.com/hmm-exporter/hmm-exporter#readme" \
    org.opencontainers.image.licenses="Apache-2.0 AND GPL-2.0-only" \
    org.opencontainers.image.version="$VERSION"
# A layer that changes with Debian, and one that changes with the exporter.
COPY --from=packages /image /
COPY --from=package /image/usr/lib/python3/dist-packages/hmm_exporter /usr/lib/python3/dist-packages/hmm_exporter
USER 65532:65532
EXPOSE 10466
ENTRYPOINT ["/usr/bin/hmm-exporter"]

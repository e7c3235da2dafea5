# SPDX-License-Identifier: Apache-2.0
"""The status page at ``/``, for a person: how the node is, and how the exporter is. One file, no script.

``page`` puts it together; ``figures`` what was counted, and since when; ``measures`` which sums and shares;
``summary`` the few that come first; ``who`` and ``tables`` processes, devices, drivers, callers; ``histograms`` and
``histogram_svg`` distributions, drawn; ``health`` the exporter itself; ``probes`` what is attached and why not;
``markup`` text that is HTML, and text that is not; ``style`` how all of it looks. It reads what a scrape exposes and
nothing else, so that it needs no right and says nothing new.
"""

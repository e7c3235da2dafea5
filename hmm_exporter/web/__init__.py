# SPDX-License-Identifier: Apache-2.0
"""The HTTP endpoint: from a listening socket to the bytes of a response.

``address`` what to listen on; ``server`` sockets, connections, HTTP; ``routes`` which path answers
what; ``telemetry`` a scrape; ``negotiation`` Accept and Accept-Encoding; ``page`` the status page at
``/``; ``status`` what the daemon tells this package. What is measured does not belong here.
"""

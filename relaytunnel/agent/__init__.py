"""
The agent: inside the firewall, dials out and publishes servers.

The core (C{servers}, C{backoff}, C{session}, C{visit}) decides and knows no
socket; the rest puts it on the network.
"""

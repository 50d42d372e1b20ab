"""
The relay: outside the firewall, dialled by agents and clients.

The core (C{registry}, C{waiting}, C{publishing}, C{visits}, C{agents}) decides
and knows no socket; the rest puts it on the network.
"""

"""
Visits from this machine: what C{relaytunnel connect} and C{relaytunnel
forward} do.  They name the server in an HTTP CONNECT to a client port of the
relay; clients that say themselves whom they want need neither.
"""

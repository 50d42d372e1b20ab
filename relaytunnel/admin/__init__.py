"""
The admin interface: what operators and their tools may ask a running relay.
"""

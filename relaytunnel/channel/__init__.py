"""
How bytes move on one channel: TCP, TLS, frames; who is at the other end of it.
"""

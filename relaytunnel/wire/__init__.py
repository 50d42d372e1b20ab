"""
What the channels say: messages, frames, invitations.  Sans-IO.
"""

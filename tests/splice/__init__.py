"""
Tests of L{relaytunnel.splice}.
"""

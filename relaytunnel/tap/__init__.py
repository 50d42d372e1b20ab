"""
The two C{twistd} plugins: their options, and the services they make.
"""

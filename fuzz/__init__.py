"""
Fuzzing of everything that reads bytes from outside.

C{python -m fuzz} lets atheris look for inputs that a parser does not stand, led
by the code that they reach; C{python -m fuzz.live} throws such inputs at a
running relay that serves others meanwhile.  The inputs that are kept, in
C{fuzz/corpus}, are replayed by the test suite.
"""

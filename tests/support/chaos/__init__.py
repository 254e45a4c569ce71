"""Break everything at random points and check on the wire that nothing is lost; start with `driver.py`.

Knows the daemon by protocol 1.0 only: nothing here imports its code.
"""

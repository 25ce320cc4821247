"""Xinglin (杏林): from a medical knowledge graph to a tuned, grounded and evaluated Chinese medical model.

xinglin demo                  the whole way once, on real data, in minutes
xinglin --help                every command
"""

__version__ = "0.1.0"

"""Quality of instruction data: what is wrong with a file, and a cleaned copy of it."""

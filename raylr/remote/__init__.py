"""Folders of object stores and of HDFS: addresses, working copies of them on this machine, leases. It knows nothing of
studies and imports `raylr.errors` alone."""

"""The machine: device and dtype, OpenBLAS, streams, threads, files that are whole, and ranks."""

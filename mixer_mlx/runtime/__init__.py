"""The machine: device and dtype, OpenBLAS, streams, threads, atomic files, and ranks."""

"""What runs: the kernel compiler and its cache, the native executor, threads, memory, libraries."""

"""What dockd decides: plain data, tables and functions. No I/O, no event loop, no clock."""

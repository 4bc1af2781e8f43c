"""The demo: a store and a dock on this machine, cameras full of footage, and things that break."""

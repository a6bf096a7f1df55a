"""The parts of benchmarks/peers.py; `arms` holds what runs in a peer's own environment."""

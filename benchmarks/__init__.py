"""What CLIPtrase costs, measured: `python -m benchmarks` (make bench)."""

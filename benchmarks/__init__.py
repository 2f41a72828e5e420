"""What is measured, not tested. `python -m benchmarks` (make bench): what CLIPtrase costs."""

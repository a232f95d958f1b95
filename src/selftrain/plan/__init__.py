"""What a config will take before it runs: jobs, images, forward passes, steps, disk, hours. `selftrain plan`."""

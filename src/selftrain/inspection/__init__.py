"""What is in a file that the graph made, as a pandas table: `selftrain inspect`."""

"""Files that others published, in: their names for tensors and sizes, and ours."""

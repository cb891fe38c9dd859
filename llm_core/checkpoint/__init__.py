"""Models that others published, in, and ours, out: their names for tensors, sizes and vocabularies, and ours."""

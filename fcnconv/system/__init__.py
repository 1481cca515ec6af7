"""The machine's resources: complete files, scratch space, memory and processors, standard output."""

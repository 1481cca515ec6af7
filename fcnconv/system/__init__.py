"""What the machine gives: files that appear whole, scratch space, memory and processors, standard output."""

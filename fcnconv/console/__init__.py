"""What a person or a program at the other end sees: tables, lines and JSON, and maps drawn in a terminal."""

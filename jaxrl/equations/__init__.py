"""Pure maths, one named equation a function, written for one item or one sequence; the caller vmaps."""
